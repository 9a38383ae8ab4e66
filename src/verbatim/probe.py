"""The numerics probe: two machines with the same probe compute the same bits, for the kinds of operator that training uses.

Inputs are dyadic fractions made from integers, so that they are the same everywhere; only the operators under test can differ.
"""

from collections.abc import Callable

from verbatim import digest


def probe() -> str:
    """Digest of fixed small matmuls, reductions, convolutions and transcendentals on the CPU, forward and backward.

    Takes about 15 ms. Depends on the thread count and the process variables, as training does. Imports torch.
    """
    import torch
    from torch.nn import functional

    def made(*shape: int) -> "torch.Tensor":  # about uniform in [-1, 1), step 2**-10, by a small linear congruence
        n = torch.Size(shape).numel()
        return (
            ((torch.arange(n, dtype=torch.int64) * 48271 + 11) % 2039).float().sub_(1019.5).mul_(2.0**-10).view(shape)
        )

    def forward_backward(function: "Callable[..., torch.Tensor]", *inputs: "torch.Tensor") -> "list[torch.Tensor]":
        leaves = [x.clone().requires_grad_() for x in inputs]
        out = function(*leaves)
        # A scalar's gradient: for any other, torch loads its symbolic shapes (and sympy) to compare two shapes, 0.3 s.
        return [out, *torch.autograd.grad((out * made(*out.shape)).sum(), leaves)]

    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        results = {
            "linear": forward_backward(functional.linear, made(67, 129), made(65, 129), made(65)),
            "linear_tall": forward_backward(functional.linear, made(8, 1025), made(33, 1025), made(33)),
            "bmm": forward_backward(torch.bmm, made(5, 17, 33), made(5, 33, 19)),
            "conv2d": forward_backward(
                lambda x, w: functional.conv2d(x, w, padding=1), made(5, 3, 15, 15), made(13, 3, 3, 3)
            ),
            "softmax": forward_backward(lambda x: x.softmax(-1), made(33, 65)),
            "layer_norm": forward_backward(lambda x: functional.layer_norm(x, (65,)), made(33, 65)),
            "batch_norm": forward_backward(
                lambda x: functional.batch_norm(x, None, None, training=True), made(9, 7, 5, 5)
            ),
            "gelu": forward_backward(functional.gelu, made(1003)),
            "sigmoid": forward_backward(torch.sigmoid, made(1003)),
            "tanh": forward_backward(torch.tanh, made(1003)),
            "exp": forward_backward(torch.exp, made(1003)),
            "log": forward_backward(lambda x: (x.abs() + 0.5).log(), made(1003)),
            "sqrt": forward_backward(lambda x: (x.abs() + 0.5).sqrt(), made(1003)),
            "sum": forward_backward(torch.sum, made(10007)),
            "var": forward_backward(torch.var, made(10007)),
            "randn": [torch.randn(1003)],
        }
    return digest.of_tensors({f"{name}.{i}": t for name, many in results.items() for i, t in enumerate(many)})
