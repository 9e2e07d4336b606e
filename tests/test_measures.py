import math
import warnings

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.metrics import r2_score

from paperlib.measures import (
    collapse_depth,
    cutoff,
    cutoffs,
    differential_entropy,
    differential_entropy_published,
    gram_entropy,
    r_squared,
    relative_entropy,
)

COLLAPSED = 0.5 * math.log(2 * math.pi * math.e) + math.log(1e-9)
OF_PAIRS = [relative_entropy, r_squared]
OF_BATCHES = [differential_entropy, differential_entropy_published, gram_entropy]
TYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int64]


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def images(rng):
    return torch.rand(6, 1, 4, 5, generator=rng)


@pytest.fixture
def cascade(rng):
    """Reconstructions of `images` at three levels."""
    return torch.rand(3, 6, 1, 4, 5, generator=rng)


def arguments(measure, images, cascade):
    return (images, cascade) if measure in OF_PAIRS else (cascade,)


# --- relative entropy


def test_relative_entropy_is_zero_for_identical_images(images):
    assert torch.equal(relative_entropy(images, images), torch.zeros(6, dtype=torch.float64))


def test_relative_entropy_of_nearly_identical_images_is_never_negative(rng):
    images = torch.rand(200, 50, generator=rng, dtype=torch.float64)
    nearly = images * (1 + 1e-12 * torch.rand(200, 50, generator=rng, dtype=torch.float64))
    entropies = relative_entropy(images, nearly)
    assert (entropies >= 0).all()
    assert entropies.max() < 1e-12


def test_relative_entropy_is_scipys_divergence_of_shifted_images(images, cascade):
    def lifted(batch):
        flat = batch.double().reshape(6, 20).numpy()
        return flat - flat.min(axis=1, keepdims=True) + 1e-12

    expected = scipy.stats.entropy(lifted(images), lifted(cascade[1]), axis=1)
    assert relative_entropy(images, cascade[1]).numpy() == pytest.approx(expected, rel=1e-12)


def test_relative_entropy_of_a_grey_reconstruction_has_a_closed_form():
    one_of_four = torch.tensor([[1.0, 0, 0, 0]])
    grey = torch.full((1, 4), 0.5)
    assert relative_entropy(one_of_four, grey).item() == pytest.approx(math.log(4), abs=1e-9)


def test_relative_entropy_punishes_black_where_the_reference_is_bright():
    reference, wrong = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert relative_entropy(reference, wrong).item() == pytest.approx(math.log(1e12), rel=1e-9)


def test_relative_entropy_ignores_an_offset_of_brightness(images, cascade):
    whole, levels = (images * 100).round(), (cascade * 100).round()
    assert torch.equal(relative_entropy(whole - 7, levels + 20), relative_entropy(whole, levels))


def test_relative_entropy_is_not_symmetric(images, cascade):
    forward, backward = (
        relative_entropy(images, cascade[0]),
        relative_entropy(cascade[0], images),
    )
    assert not torch.allclose(forward, backward, rtol=1e-3)


# --- differential entropy


@pytest.mark.parametrize("images", [torch.ones(5, 9), torch.rand(1, 9).repeat(5, 1)])
def test_differential_entropy_of_a_collapsed_batch_is_the_published_floor(images):
    assert differential_entropy(images).item() == pytest.approx(COLLAPSED, abs=1e-9)
    assert differential_entropy(images).item() == pytest.approx(-19.3, abs=0.01)


def test_differential_entropy_is_the_gaussian_formula_in_numpy(images):
    flat = images.double().reshape(6, 20).numpy()
    std = (flat / flat.sum(axis=1, keepdims=True)).std(axis=0, ddof=1)
    expected = scipy.stats.norm.entropy(scale=np.maximum(std, 1e-9)).mean()
    assert differential_entropy(images).item() == pytest.approx(expected, rel=1e-12)


def test_differential_entropy_floors_each_constant_pixel():
    images = torch.tensor([[0.0, 0.25, 0.75], [0.0, 0.75, 0.25]])
    varied = scipy.stats.norm.entropy(scale=0.5 / math.sqrt(2))
    expected = (COLLAPSED + 2 * varied) / 3
    assert differential_entropy(images).item() == pytest.approx(expected, rel=1e-12)


def test_differential_entropy_ignores_the_brightness_of_each_image(images):
    factors = torch.arange(1, 7).reshape(6, 1, 1, 1)
    same = differential_entropy(images * factors)
    assert same.item() == pytest.approx(differential_entropy(images).item(), rel=1e-6)


@pytest.mark.parametrize("bad", [[0.0, 0.0], [1.0, -1.0], [-1.0, -2.0], [1.0, 1e-7 - 1.0]])
def test_differential_entropy_is_nan_with_a_warning_where_a_sum_is_not_positive(bad):
    images = torch.tensor([bad, [1.0, 2.0], [3.0, 1.0]], dtype=torch.float64)
    with pytest.warns(RuntimeWarning, match=r"1 of 1 values are NaN.*no positive sum"):
        assert differential_entropy(images).isnan()


# --- differential entropy as published

# One picture for each case that the shift meets: as usual, of negative sum, of sum 0, and constant.
BATCH = [[0.0, 0.5, 0.25, 1.0], [-3.0, -1.0, -2.5, -2.0], [1.0, -1.0, 0.5, -0.5], [0.3] * 4]


def test_published_differential_entropy_is_its_formula_in_numpy():
    shifted = np.array(BATCH, dtype=np.float64)
    shifted = shifted - shifted.min(axis=1, keepdims=True) + 1e-12
    shifted = shifted / shifted.sum(axis=1, keepdims=True)
    std = np.sqrt(((shifted - shifted.mean(axis=0)) ** 2).sum(axis=0) / 3)
    expected = 0.5 * np.log(2 * np.pi * np.e) + np.mean(np.log(np.maximum(std, 1e-9)))
    found = differential_entropy_published(torch.tensor(BATCH, dtype=torch.float64))
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_published_differential_entropy_is_that_of_pictures_already_shifted_in_place(images):
    # As in the authors' scripts, where the relative entropy, measured before, shifts its arguments.
    pictures = images.double().numpy() - 0.7
    for picture in pictures:
        picture -= picture.min()
        picture /= picture.sum()
    in_their_order = differential_entropy(pictures).item()
    found = differential_entropy_published(images.double() - 0.7).item()
    assert found == pytest.approx(in_their_order, abs=1e-9)
    assert abs(found - differential_entropy(images).item()) > 0.01


def test_published_differential_entropy_has_a_closed_form_for_two_images():
    images = torch.tensor([[5.0, 5.25, 5.75], [-9.0, -8.25, -8.75]], dtype=torch.float64)
    varied = scipy.stats.norm.entropy(scale=0.5 / math.sqrt(2))
    expected = (COLLAPSED + 2 * varied) / 3
    assert differential_entropy_published(images).item() == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("constant", [3.0, -40.0])
def test_published_differential_entropy_ignores_a_constant_added_to_one_picture(images, constant):
    other = images.double()
    other[2] += constant
    expected = differential_entropy_published(images).item()
    assert differential_entropy_published(other).item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("factor", [0.2, 250.0])
def test_published_differential_entropy_ignores_the_contrast_of_one_picture(images, factor):
    other = images.double()
    other[2] *= factor
    expected = differential_entropy_published(images).item()
    assert differential_entropy_published(other).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("picture", [torch.zeros(9), -torch.ones(9), torch.linspace(-2, 1, 9)])
def test_published_differential_entropy_of_a_collapsed_batch_is_the_published_floor(picture):
    collapsed = differential_entropy_published(picture.repeat(5, 1)).item()
    assert collapsed == pytest.approx(COLLAPSED, abs=1e-9)
    assert collapsed == pytest.approx(-19.3, abs=0.01)


@pytest.mark.parametrize("bad", [[0.0, 0.0], [1.0, -1.0], [-1.0, -2.0], [1.0, 1e-7 - 1.0]])
def test_published_differential_entropy_is_finite_where_a_sum_is_not_positive(bad):
    images = torch.tensor([bad, [1.0, 2.0], [3.0, 1.0]], dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert differential_entropy_published(images).isfinite()


# --- gram entropy


def test_gram_entropy_of_a_collapsed_batch_is_zero(images):
    assert gram_entropy(images[:1].repeat(7, 1, 1, 1)).item() == pytest.approx(0, abs=1e-10)


def test_gram_entropy_of_orthogonal_images_is_one():
    hadamard = torch.tensor([[1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]])
    assert gram_entropy(hadamard).item() == pytest.approx(1, abs=1e-12)


def test_gram_entropy_of_two_images_follows_from_their_correlation(images):
    two = images[:2].reshape(2, 20)
    correlation = np.corrcoef(two.double().numpy())[0, 1]
    expected = scipy.stats.entropy([(1 + correlation) / 2, (1 - correlation) / 2], base=2)
    assert gram_entropy(two).item() == pytest.approx(expected, rel=1e-10)


def test_gram_entropy_is_the_spectral_entropy_of_the_correlation_matrix(images):
    spectrum = np.linalg.eigvalsh(np.corrcoef(images.double().reshape(6, 20).numpy()) / 6)
    expected = scipy.stats.entropy(spectrum, base=6)
    assert gram_entropy(images).item() == pytest.approx(expected, rel=1e-10)


def test_gram_entropy_ignores_offset_and_contrast(images):
    factors = torch.arange(1, 7).reshape(6, 1, 1, 1)
    same = gram_entropy(images * factors + factors)
    assert same.item() == pytest.approx(gram_entropy(images).item(), rel=1e-5)


def test_gram_entropy_keeps_constant_images_as_zero_rows():
    # 0.1 has no exact mean in binary: centring leaves rounding noise, which must not count.
    flat = torch.full((2, 7), 0.1, dtype=torch.float64)
    assert gram_entropy(flat).item() == 0
    opposite = torch.tensor([[1.0, -1, 0, 0, 0, 0, 0], [0.0, 0, 1, -1, 0, 0, 0]])
    # Two orthogonal rows of four: eigenvalues ¼, ¼, 0, 0.
    expected = 2 * 0.25 * math.log(4) / math.log(4)
    assert gram_entropy(torch.cat([flat, opposite])).item() == pytest.approx(expected, rel=1e-12)


# --- R²


def test_r_squared_of_a_perfect_reconstruction_is_one(images):
    assert r_squared(images, images).item() == 1


def test_r_squared_of_the_mean_image_is_zero(images):
    mean = images.double().mean(dim=0)
    assert r_squared(images, mean.expand(6, 1, 4, 5)).item() == pytest.approx(0, abs=1e-12)


def test_r_squared_is_scikit_learns_weighted_by_the_variance_of_pixels(images, cascade):
    flat, rebuilt = images.reshape(6, 20).double(), cascade[0].reshape(6, 20).double()
    expected = r2_score(flat.numpy(), rebuilt.numpy(), multioutput="variance_weighted")
    assert r_squared(images, cascade[0]).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shape", [(20,), (1, 4, 5), (4, 5)])
def test_r_squared_measures_distances_to_the_mean_it_is_given(images, cascade, shape):
    mean = torch.full(shape, 0.3)
    spread = (images.double() - torch.tensor(0.3).double()).square().mean()
    expected = 1 - (cascade[0].double() - images.double()).square().mean() / spread
    assert r_squared(images, cascade[0], mean=mean).item() == pytest.approx(expected.item())


def test_r_squared_of_one_image_needs_a_mean(images):
    with pytest.raises(ValueError, match="mean="):
        r_squared(images[:1], images[:1])
    assert r_squared(images[:1], images[:1], mean=images.mean(dim=0)).item() == 1


def test_r_squared_refuses_a_mean_of_another_size(images):
    with pytest.raises(ValueError, match=r"20 pixels.*\(3,\)"):
        r_squared(images, images, mean=torch.zeros(3))


def test_r_squared_is_nan_with_a_warning_where_the_reference_does_not_vary(rng):
    # Seven equal float64 images have a mean that differs from them by rounding.
    same = torch.rand(1, 9, generator=rng, dtype=torch.float64).repeat(7, 1)
    with pytest.warns(RuntimeWarning, match="do not vary"):
        assert r_squared(same, same + 0.1).isnan()


# --- what all measures promise


@pytest.mark.parametrize("measure", OF_PAIRS + OF_BATCHES)
def test_levels_give_what_each_level_gives_alone(measure, images, cascade):
    together = measure(*arguments(measure, images, cascade))
    alone = [measure(*arguments(measure, images, level)) for level in cascade]
    assert together.dtype == torch.float64
    assert torch.equal(together, torch.stack(alone))
    assert together.shape == ((3, 6) if measure is relative_entropy else (3,))


@pytest.mark.parametrize("measure", OF_PAIRS + OF_BATCHES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_measures_leave_their_arguments_alone(measure, dtype, images, cascade):
    # float64 arguments are not copied by the conversion to float64, so only they show a change.
    given = arguments(measure, images.to(dtype), cascade.to(dtype))
    before = [tensor.clone() for tensor in given]
    first, second = measure(*given), measure(*given)
    assert torch.equal(first, second)
    assert all(torch.equal(kept, tensor) for kept, tensor in zip(before, given, strict=True))


def test_measures_give_the_same_in_either_order(images, cascade):
    def results(order):
        own = images.double(), cascade.double()
        return {measure: measure(*arguments(measure, *own)) for measure in order}

    forward = results(OF_PAIRS + OF_BATCHES)
    backward = results(list(reversed(OF_PAIRS + OF_BATCHES)))
    assert all(torch.equal(forward[measure], backward[measure]) for measure in forward)


@pytest.mark.parametrize("measure", OF_PAIRS + OF_BATCHES)
def test_measures_do_not_depend_on_the_layout_in_memory(measure, images, cascade):
    strided = images.mT.contiguous().mT, cascade.mT.contiguous().mT
    assert not strided[0].is_contiguous()
    expected = measure(*arguments(measure, images, cascade))
    assert torch.allclose(measure(*arguments(measure, *strided)), expected, rtol=1e-12)
    array = images.numpy()[:, :, ::-1, ::-1].copy()[:, :, ::-1, ::-1], cascade.numpy()
    assert torch.allclose(measure(*arguments(measure, *array)), expected, rtol=1e-12)


@pytest.mark.parametrize("measure", OF_PAIRS + OF_BATCHES)
@pytest.mark.parametrize("dtype", TYPES)
def test_measures_compute_any_number_type_in_float64(measure, dtype, images, cascade):
    typed = (images * 250).to(dtype), (cascade * 250).to(dtype)
    result = measure(*arguments(measure, *typed))
    exact = measure(*arguments(measure, *(tensor.double() for tensor in typed)))
    assert result.dtype == torch.float64
    assert torch.equal(result, exact)


@pytest.mark.parametrize("measure", OF_PAIRS + OF_BATCHES)
def test_measures_keep_no_gradient(measure, images, cascade):
    tracked = images.requires_grad_(), cascade.requires_grad_()
    assert not measure(*arguments(measure, *tracked)).requires_grad


@pytest.mark.parametrize("measure", OF_PAIRS + OF_BATCHES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_image_that_is_not_finite_makes_only_its_level_nan(measure, bad, images, cascade):
    broken = cascade.clone()
    broken[1, 2, 0, 3, 3] = bad
    with pytest.warns(RuntimeWarning, match="not finite") as caught:
        result = measure(*arguments(measure, images, broken))
    expected = measure(*arguments(measure, images, cascade))
    where = (1, 2) if measure is relative_entropy else (1,)
    expected[where] = math.nan
    assert torch.allclose(result, expected, equal_nan=True, rtol=1e-12)
    assert [warning.filename for warning in caught] == [__file__]


def test_good_images_raise_no_warning(images, cascade):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for measure in OF_PAIRS + OF_BATCHES:
            measure(*arguments(measure, images, cascade))


@pytest.mark.parametrize("measure", OF_PAIRS)
@pytest.mark.parametrize("shape", [(6, 20), (6, 4, 5), (6, 1, 4, 5)])
def test_pairs_match_flat_or_not(measure, shape, images, cascade):
    expected = measure(images, cascade)
    assert torch.equal(measure(images.reshape(shape), cascade.reshape(3, 6, 20)), expected)
    assert torch.equal(measure(images, cascade.reshape(3, *shape)), expected)
    assert torch.equal(measure(images, cascade[0].reshape(shape)), expected[0])


@pytest.mark.parametrize(
    ("reference", "reconstruction", "result"),
    [
        ((1, 1, 4, 5), (1, 1, 4, 5), (1,)),
        ((1, 1, 4, 5), (1, 1, 1, 4, 5), (1, 1)),
        ((1, 1, 4, 5), (1, 1, 20), (1, 1)),
        ((1, 20), (1, 1, 20), (1, 1)),
        ((1, 20), (1, 20), (1,)),
        ((2, 2, 2), (2, 2, 2), (2,)),
        ((2, 2, 2), (2, 2, 4), (2, 2)),
    ],
)
def test_levels_are_recognised_beside_a_single_image(reference, reconstruction, result, rng):
    first = torch.rand(reference, generator=rng)
    second = torch.rand(reconstruction, generator=rng)
    assert relative_entropy(first, second).shape == result


@pytest.mark.parametrize("measure", OF_PAIRS)
@pytest.mark.parametrize(
    ("reference", "reconstruction"),
    [
        ((6, 20), (5, 20)),
        ((6, 20), (6, 21)),
        ((6, 20), (3, 5, 20)),
        ((6, 20), (120,)),
        ((6, 20), ()),
        ((20,), (20,)),
        ((0, 20), (0, 20)),
        ((6, 20), (0, 6, 20)),
    ],
)
def test_pairs_that_do_not_match_are_refused_with_both_shapes(measure, reference, reconstruction):
    with pytest.raises(ValueError, match="got") as caught:
        measure(torch.ones(reference), torch.ones(reconstruction))
    assert f"{reference} and {reconstruction}" in str(caught.value)


@pytest.mark.parametrize("measure", OF_BATCHES)
@pytest.mark.parametrize("shape", [(), (6,), (0, 4), (6, 0), (1, 2, 1, 1, 2, 2), (1, 20)])
def test_batches_of_a_wrong_shape_are_refused_with_their_shape(measure, shape):
    with pytest.raises(ValueError, match="images") as caught:
        measure(torch.ones(shape))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("measure", OF_BATCHES)
def test_the_number_of_axes_tells_levels_from_channels(measure, images, cascade):
    assert measure(images.reshape(6, 20)).shape == measure(images).shape == ()
    assert measure(cascade.reshape(3, 6, 20)).shape == measure(cascade).shape == (3,)


@pytest.mark.parametrize("bad", [None, "image", {}, [[1.0], [1.0, 2.0]]])
def test_measures_refuse_what_is_not_numbers(bad, images):
    with pytest.raises(ValueError, match="images must be a tensor or an array"):
        gram_entropy(bad)
    with pytest.raises(ValueError, match="reconstruction must be a tensor or an array"):
        relative_entropy(images, bad)


def test_measures_refuse_complex_numbers(images):
    with pytest.raises(ValueError, match=r"real, got torch\.complex64"):
        gram_entropy(images.to(torch.complex64))


def test_measures_take_read_only_arrays(images):
    array = images.numpy().copy()
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(gram_entropy(array), gram_entropy(images))


# --- depths


@pytest.mark.parametrize(
    ("curve", "depth"),
    [
        ([0.9, 0.5, 0.01, 0.0], 3),
        ([0.9, 0.5, 0.3], 4),
        ([0.01, -0.2], 1),
        ([0.9, 0.01, 0.03, 0.01], 4),
        ([0.9, 0.02], 3),
        ([0.9, math.nan, 0.5, math.nan, math.nan], 4),
        ([math.nan, math.nan], 1),
        ([0.9, -math.inf], 2),
    ],
)
def test_collapse_depth_is_the_first_from_which_the_image_stays_lost(curve, depth):
    assert collapse_depth(torch.tensor(curve)) == depth
    assert collapse_depth(np.array(curve)) == depth
    assert isinstance(collapse_depth(curve), int)


def test_collapse_depth_follows_its_threshold():
    assert collapse_depth([0.9, 0.5, 0.01], threshold=0.6) == 2


@pytest.mark.parametrize("shape", [(), (0,), (3, 2)])
def test_collapse_depth_refuses_what_is_not_a_curve(shape):
    with pytest.raises(ValueError, match="curve must have shape"):
        collapse_depth(torch.ones(shape))


def test_cutoff_is_the_last_depth_that_differs_from_the_end():
    curve = torch.tensor([5.0, 2.0, 2.1, 2.0, 2.005, 2.0])
    assert cutoff(curve[:, None], rtol=0.01) == 3
    assert cutoff(curve[:, None], rtol=0.001) == 5
    assert cutoff(curve[:, None], rtol=0.06) == 1
    assert cutoff(curve[:, None], rtol=2.0) == 0


def test_cutoff_takes_the_median_after_dividing_each_curve_by_its_end():
    # The medians of the curves, 20 and 20, would not differ; those of the ratios are 1.5 and 1.
    curves = torch.tensor([[1.5, 20.0, 150.0], [1.0, 20.0, 100.0]])
    assert cutoff(curves, rtol=0.4) == 1
    assert cutoff(curves, rtol=0.5) == 0


def test_cutoff_averages_the_two_middle_images_of_an_even_number():
    curves = torch.tensor([[1.0, 1.2], [1.0, 1.0]])
    assert cutoff(curves, rtol=0.09) == 1
    assert cutoff(curves, rtol=0.11) == 0


@pytest.mark.parametrize("bad", [[2.0, 1.0, 0.0], [2.0, 1.0, math.nan], [2.0, math.inf, 1.0]])
def test_cutoff_leaves_out_images_without_a_usable_end_and_says_so(bad):
    good = [1.0, 1.5, 1.0]
    curves = torch.tensor([good, bad]).T
    with pytest.warns(RuntimeWarning, match="leaves out 1 of 2"):
        assert cutoff(curves, rtol=0.4) == 2
    with pytest.raises(ValueError, match="none of 1 curves"):
        cutoff(torch.tensor([bad]).T, rtol=0.4)


def test_cutoff_of_one_falling_curve_takes_negative_entropies():
    entropies = torch.tensor([-6.0, -12.0, -19.0, -19.3, -19.3])
    assert cutoff(entropies[:, None], rtol=0.005) == 3
    assert cutoff(entropies[:, None], rtol=0.5) == 1


def test_cutoffs_are_those_of_each_image_alone():
    generator = torch.Generator().manual_seed(0)
    curves = torch.rand(30, 7, generator=generator) + torch.linspace(9, 5, 30)[:, None]
    found = cutoffs(curves, rtol=0.1)
    assert found.dtype == torch.int64
    assert found.tolist() == [cutoff(curves[:, [image]], rtol=0.1) for image in range(7)]
    assert len(set(found.tolist())) > 1


def test_cutoffs_count_from_one_and_are_zero_for_a_constant_curve():
    curves = np.array([[5.0, 3.0, 2.0], [4.0, 3.0, 1.0], [4.0, 3.0, 2.0]])
    assert cutoffs(curves, rtol=0.01).tolist() == [1, 0, 2]


@pytest.mark.parametrize("bad", [[2.0, 1.0, 0.0], [2.0, 1.0, math.nan], [2.0, math.inf, 1.0]])
def test_cutoffs_without_a_usable_end_are_minus_one_with_a_warning(bad):
    with pytest.warns(RuntimeWarning, match="leaves out 1 of 2") as caught:
        assert cutoffs(torch.tensor([[1.0, 1.5, 1.0], bad]).T, rtol=0.4).tolist() == [2, -1]
    assert [warning.filename for warning in caught] == [__file__]
    with pytest.warns(RuntimeWarning, match="leaves out 1 of 1"):
        assert cutoffs(torch.tensor([bad]).T, rtol=0.4).tolist() == [-1]


@pytest.mark.parametrize("measure", [cutoff, cutoffs])
@pytest.mark.parametrize("shape", [(5,), (0, 3), (3, 0), (2, 2, 2)])
def test_cutoff_refuses_what_is_not_depth_by_batch(measure, shape):
    with pytest.raises(ValueError, match=r"\(depth, batch\)"):
        measure(torch.ones(shape), rtol=0.01)


@pytest.mark.parametrize("measure", [cutoff, cutoffs])
@pytest.mark.parametrize("rtol", [-0.1, math.nan])
def test_cutoff_refuses_a_tolerance_that_is_not_one(measure, rtol):
    with pytest.raises(ValueError, match=r"rtol must be (>= 0|a finite number)"):
        measure(torch.ones(3, 2), rtol=rtol)


def test_depths_leave_their_arguments_alone():
    curves = torch.rand(5, 4, generator=torch.Generator().manual_seed(1)) + 1
    before = curves.clone()
    assert cutoff(curves, rtol=0.1) == cutoff(curves, rtol=0.1)
    assert torch.equal(cutoffs(curves, rtol=0.1), cutoffs(curves, rtol=0.1))
    assert collapse_depth(curves[:, 0]) == 6
    assert torch.equal(curves, before)
