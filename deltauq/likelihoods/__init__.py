"""What the outputs of a network mean: the loss of one example and its derivatives in the logits.

A likelihood is an object of pure TensorFlow functions on logits `[B, C]`, usable inside and outside
`tf.function`. A new one is a subclass of `Likelihood`.
"""

from deltauq.likelihoods.bernoulli import Bernoulli, Binary
from deltauq.likelihoods.categorical import Categorical
from deltauq.likelihoods.compiled import Training, read_likelihood, resolve_likelihood
from deltauq.likelihoods.custom import CustomLoss
from deltauq.likelihoods.gaussian import Gaussian
from deltauq.likelihoods.likelihood import Likelihood
from deltauq.likelihoods.poisson import Poisson
from deltauq.likelihoods.positions import AtPositions
from deltauq.likelihoods.serialization import likelihood_facts, likelihood_of

__all__ = [
    "AtPositions",
    "Bernoulli",
    "Binary",
    "Categorical",
    "CustomLoss",
    "Gaussian",
    "Likelihood",
    "Poisson",
    "Training",
    "likelihood_facts",
    "likelihood_of",
    "read_likelihood",
    "resolve_likelihood",
]
