"""Which places of a run become stages: cuts, what is cut off before a head, and what lies inside.

A stage ends where all paths from the input to the output meet. Where one holds many weights, cuts
between operations divide it, whether or not a module ends there; where no cut does, as in decoders
and U-Nets, layers inside are looked at beside the main path.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import nn

from paperlib.activations.calls import Layers, ProbeError, Recorded
from paperlib.activations.flow import Operation, mixes, nodes_between, weighs
from paperlib.core.checks import quoted

HELD = 6  # weights in a stage, beyond which it is opened
BESIDE = 3  # of them before the call that names it
APART = 3  # weights from one layer that is looked at inside a stage to the next
NARROWER = 2  # times fewer numbers: something was cut off
RECURRENT = "(a layer of"
_JOINING = ("stack", "cat", "rnn_layer")  # all times of a recurrent layer
_NARROWING = ("select", "slice", "mean", "index", "gather", "amax", "max", "narrow", "logsumexp")

Choice = list[Recorded]


class Cuts:
    """The calls and operations of one run, and where they cut it."""

    def __init__(
        self,
        calls: Sequence[Recorded],
        operations: Sequence[Operation],
        cuts: Mapping[int, int],
        recurrent: Mapping[str, int] | None = None,
    ) -> None:
        self.calls, self.operations, self.cuts = list(calls), list(operations), dict(cuts)
        self.recurrent = dict(recurrent or {})  # how many recurrent layers a layer holds

    def automatic(self, *, narrowing: bool = False) -> Choice:
        """One place for every cut, less those between which nothing is mixed, nor cut off."""
        ends = sorted({call.node for call in self.calls if call.node in self.cuts})
        kept = self._apart(0, ends, narrowing=narrowing) or ends[-1:]
        return [self._named(node, kept) for node in kept]

    def opened(self, chosen: Choice) -> Choice:
        """The same, with places inside of stages that hold many weights, and what is cut off."""
        if not chosen:
            return chosen
        found: Choice = []
        for begin, place in zip([0, *(p.node for p in chosen)], chosen, strict=False):
            found += [*self._inside(begin, place), place]
        return self._with_cut_off(found)

    def weights(self, begin: int, end: int, *, before: float = float("inf")) -> set[int]:
        """The weights that act after one cut up to another, by operations before this one."""
        return {
            weight
            for node in nodes_between(self.operations, begin, end)
            if node < before and weighs(self.operations[node])
            for weight in self.operations[node].weights
        }

    def _apart(
        self, begin: int, nodes: Sequence[int], *, weighing: bool = False, narrowing: bool = False
    ) -> list[int]:
        """Of cuts, those between which something is mixed or weighed, each as late as it may be."""
        kept: list[int] = []
        for node in nodes:
            inside = nodes_between(self.operations, kept[-1] if kept else begin, node)
            operations = [self.operations[each] for each in inside]
            acts = any(weighs(o) if weighing else mixes(o.name) for o in operations)
            if acts or (narrowing and kept and self._is_narrower(kept[-1], node)):
                kept.append(node)
            elif kept:
                kept[-1] = node
        return kept

    def _is_narrower(self, begin: int, node: int) -> bool:
        return self.operations[node].numbers * NARROWER <= self.operations[begin].numbers

    def _named(self, node: int, kept: Sequence[int]) -> Recorded:
        """The outermost of the calls that returned a tensor, of those within one stage if any is;
        not one that only passed it on."""
        calls = [call for call in self.calls if call.node == node]
        first = calls[0]
        calls = [c for c in calls if c.begin <= first.begin and c.shape == first.shape]
        whole = [c for c in calls if c.layer and not any(c.begin <= k < node for k in kept)]
        return max(whole or [c for c in calls if c.layer][:1] or calls, key=lambda c: c.order)

    def _inside(self, begin: int, place: Recorded) -> Choice:
        """Places inside of a stage that holds many weights."""
        end = place.node
        layers = [c for c in self.calls if begin < c.node <= end]
        several = any(self.recurrent.get(c.layer, 1) > 1 for c in layers)
        beside = self.weights(begin, end, before=place.begin)
        if len(self.weights(begin, end)) <= HELD and len(beside) < BESIDE and not several:
            return []
        nodes = [node for node in sorted(self.cuts) if begin < node < end and self._may_end(node)]
        kept = self._apart(begin, nodes, weighing=True)
        while kept and not self.weights(kept[-1], end):
            kept.pop()
        found: Choice = []
        for first, last in pairwise([begin, *kept, end]):
            if len(self.weights(first, last)) > HELD:
                found += self._beside(first, last)
            if last != end:
                found.append(self._place(last, first))
        return found

    def _may_end(self, node: int) -> bool:
        """Whether a cut may end a stage: inside of recurrent layers only where one of them does."""
        outputs = [c for c in self.calls if c.layer in self.recurrent and not c.place]
        inside = [c.node for c in outputs if c.begin <= node < c.end and c.node != node]
        made = self.operations[node]
        joined = any(word in made.name for word in _JOINING)
        return all(joined and made.numbers == self.operations[end].numbers for end in inside)

    def _beside(self, begin: int, end: int) -> Choice:
        """Layers inside of a stage, past which other paths lead, a few weights apart."""
        needed = set(nodes_between(self.operations, begin, end))
        acting = {n: self.operations[n].weights for n in needed if weighs(self.operations[n])}

        def held(call: Recorded) -> set[int]:
            inside = [w for node, w in acting.items() if call.begin <= node < call.end]
            return set().union(*inside)

        calls = {
            c.node: c
            for c in self.calls
            if c.layer and c.node in needed and c.node not in self.cuts and c.begin >= begin
        }
        inside = {node: held(call) for node, call in calls.items()}
        small = [calls[node] for node, weights in inside.items() if 0 < len(weights) <= HELD]
        found: Choice = []
        since = 0
        for call in sorted(small, key=lambda c: c.node):
            around = (o for o in small if o is not call and o.begin <= call.begin)
            if any(o.end >= call.end and o.end - o.begin > call.end - call.begin for o in around):
                continue
            since += len(inside[call.node])
            if since >= APART:
                found.append(call)
                since = 0
        return found

    def _with_cut_off(self, chosen: Choice) -> Choice:
        """The same, with what is left of a stage's numbers before the next weights act on them."""
        found: Choice = []
        before: Recorded | None = None
        for place in chosen:
            main = place.node in self.cuts
            if before is not None and main:
                found += self._cut_off(before.node, place.node)
            found.append(place)
            before = place if main else before
        return found

    def _cut_off(self, begin: int, end: int) -> Choice:
        inside = nodes_between(self.operations, begin, end)
        first = next((node for node in inside if weighs(self.operations[node])), None)
        if first is None:
            return []
        early = [node for node in inside if node < first and node in self.cuts]
        for place, node in reversed(list(enumerate(early))):
            names = [self.operations[n].name for n in early[: place + 1]]
            narrowed = any(n.startswith(word) for n in names for word in _NARROWING)
            if narrowed and self._is_narrower(begin, node):
                return [self._place(node, begin)]
        return []

    def _place(self, node: int, begin: int) -> Recorded:
        """The call that returned a tensor, or the operation that made it, with a name."""
        if any(call.node == node and call.layer for call in self.calls):
            return self._named(node, [begin, node])
        made = self.operations[node]
        around = [c for c in self.calls if c.begin <= node < c.end]
        layer = min(around, key=lambda c: c.end - c.begin).layer if around else ""
        least = max(1, begin)
        done = [c for c in self.calls if c.layer and least <= c.node <= node and c.end <= node + 1]
        last = max(done, key=lambda c: (c.end, c.order), default=None)
        title = f"{last.name if last else layer or 'forward'} ({made.name.strip('_')})"
        if layer in self.recurrent:
            title = f"{layer} {RECURRENT} {self.recurrent[layer]})"
        return Recorded(
            layer, -1, made.place, made.shape, node, node, node, node, made.operated, title
        )


def numbered(places: Choice) -> list[str]:
    """The names of places, where several have one with their numbers."""
    names = [place.name for place in places]
    seen: dict[str, int] = {}
    found = []
    for place, name in zip(places, names, strict=True):
        seen[name] = seen.get(name, 0) + 1
        repeated = place.operation is not None and seen[name] > 1 and RECURRENT not in name
        name = name.replace(RECURRENT, f"(layer {seen[name]} of")
        found.append(f"{name}#{seen[place.name]}" if repeated else name)
    return found


def chosen_by(calls: Sequence[Recorded], model: nn.Module, layers: Layers) -> Choice:
    """The calls of layers by name or rule, in the order in which they end; none twice."""
    modules = dict(model.named_modules())
    if isinstance(layers, str):
        layers = [layers]
    if callable(layers):
        rule = layers
        try:
            wanted = {name for name, module in modules.items() if rule(name, module)}
        except Exception as error:
            raise ProbeError(
                f"the function layers={quoted(rule)} stopped ({type(error).__name__}: {error}); it "
                "is called with a name and a module, and says whether to look there"
            ) from error
    else:
        wanted = {name.partition("#")[0] for name in layers}
        unknown = sorted(wanted - modules.keys())
        if unknown:
            known = ", ".join(list(modules)[1:9])
            raise ProbeError(
                f"the model has no layer {unknown[0]!r}; its layers are {known}"
                f"{', …' if len(modules) > 9 else ''} (see model.named_modules())"
            )
    with_call = {name for name in layers if "#" in name} if not callable(layers) else set()
    found: dict[int, Recorded] = {}
    for call in calls:
        exact = any(name.partition("#")[0] == call.layer for name in with_call)
        if call.layer in wanted and call.node > 0 and (not exact or call.name in with_call):
            found.setdefault(call.node, call)
    if not found:
        raise ProbeError(
            "layers: no layer matched that is called and returns a tensor that depends on the "
            "images; give layers='auto', dotted names as in model.named_modules(), or a function "
            "of name and module"
        )
    return [found[node] for node in sorted(found)]
