"""Any model from inside, left as it was: the one way to read activations and gradients."""

from paperlib.activations.gradients import SampleGradients, per_sample_gradients
from paperlib.activations.looking import features, look
