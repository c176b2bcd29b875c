"""Mean probability of the label, or of the first network's class, over the shifts along the diagonal."""

from aliasfix.measure.metric import Metric
from aliasfix.measure.subject import along_diagonal

PROBABILITY = Metric(
    "probability",
    "probability of the class",
    "higher",
    lambda subject: subject.once(along_diagonal).probability.mean(1),
    needs=("logits",),
    light=True,
    order=50,
)
