"""How often a network predicts the same class as the first network of the comparison."""

from torch import Tensor

from aliasfix.measure.metric import Metric
from aliasfix.measure.subject import Subject, along_diagonal


def agreement(subject: Subject) -> Tensor:
    """Share of the shifts along the diagonal at which both networks give the same class: (I,), in [0, 1]."""
    own = subject.once(along_diagonal)
    first = own if subject.reference is None else subject.reference.get(along_diagonal, own)
    return (own.top1 == first.top1).float().mean(1)


AGREEMENT = Metric(
    "agreement",
    "says what the first network says",
    "higher",
    agreement,
    needs=("logits",),
    relative=True,
    light=True,
    order=60,
)
