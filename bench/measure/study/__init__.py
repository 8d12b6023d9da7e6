r"""The study: does predicting the noise win, and if so, is it the output or the weighting?

"Predict the noise with a plain mean square" changes two things at once against "predict the image with a plain mean
square": *what the network outputs* and *how its error is weighted*, because

    ‖ε − ε̂‖² = SNR(t) · ‖x_0 − x̂_0‖².                                                              (1)

So there are four arms, not two:

                          weighting `simple`           weighting `simple_x0`
                          (1 in ε, SNR in x_0)         (1/SNR in ε, 1 in x_0)
    network outputs ε     the DDPM of Ho et al.        ε-network, image error
    network outputs x_0   x_0-network, noise error     the plain image regression

Down a column only the output changes, along a row only the objective; the diagonal, which is what is usually
compared, confounds them. With y_{ow} a yardstick of output o under weighting w, per seed,

    output effect at w         y_{εw} − y_{xw},                                                      (2)
    weighting effect at o      y_{os} − y_{oi},
    interaction                (y_{εs} − y_{xs}) − (y_{εi} − y_{xi}).

**What is held equal.** Seeds are paired: initial weights, data order, steps t and noise come from one `NoiseStream` per seed
and are the same bits in every arm. All arms share one schedule with a finite log-SNR range. Weights are
normalized to mean 1 over t and gradients are clipped relative to their own running norm, so that a weighting is not a step
size in disguise; Adam cancels what is left of a constant factor. The learning rate of each arm is chosen from one
grid, on a seed and on images that are used for nothing else, by the arm's *own* objective.

**What is compared.** An arm's own loss can be compared with nothing (that is the point of (1)). The common yardsticks, on
held-out images and with the averaged weights that are also sampled from, are the ε-MSE and the x_0-MSE by log-SNR, bits/dim
with its terms, and a Fréchet distance.

**How fast.** The threshold does not come from any arm: it is the error of the best *linear* denoiser (the exact posterior
mean for Gaussian data with the training images' mean and covariance), evaluated on the same noisy images. A network that
has not passed it has learnt nothing that a matrix could not do.

**Beside the design**: the article's network (two convolutions, no time input), and the study's network
with its time input held constant; both as ε / `simple`.

Modules: `design` (what may be run), `designs` (what is) → `task` (one unit of work and its key), `store` (finished ones) →
`yardsticks`, `vectors`, `judge` (how it is judged) → `one_run` → `worker`, `processes`, `executors` (all runs, anywhere) → `record`.
"""

from bench.measure.study.design import Arm, Design

__all__ = ["Arm", "Design"]
