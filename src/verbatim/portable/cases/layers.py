"""What networks are made of, and their losses."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from verbatim.portable.cases.inputs import FLOATS, FULL, Case, both_ways, made, positive, short, whole

CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "3x3": ((8, 3, 15, 15), (13, 3, 3, 3), {"padding": 1}),
    "3x3 wide": ((4, 32, 9, 9), (48, 32, 3, 3), {"padding": 1}),
    "one image": ((1, 17, 12, 12), (24, 17, 3, 3), {"padding": 1}),
    "stride 2": ((8, 16, 16, 16), (32, 16, 3, 3), {"padding": 1, "stride": 2}),
    "dilated": ((4, 8, 17, 17), (8, 8, 3, 3), {"dilation": 2}),
    "1x1": ((8, 33, 7, 7), (64, 33, 1, 1), {}),
    "5x5": ((4, 3, 20, 20), (16, 3, 5, 5), {}),
    "depthwise": ((4, 16, 11, 11), (16, 1, 3, 3), {"padding": 1, "groups": 16}),
    "groups": ((4, 16, 11, 11), (24, 4, 3, 3), {"padding": 1, "groups": 4}),
    "patches": ((8, 1, 8, 8), (64, 1, 2, 2), {"stride": 2}),
}


def layers() -> Iterator[tuple[str, Case]]:
    for name, (shape_x, shape_w, settings) in CONVOLUTIONS.items():
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            inputs = (
                made(*shape_x, dtype=dtype),
                made(*shape_w, salt=1, dtype=dtype),
                made(shape_w[0], salt=2, dtype=dtype),
            )
            yield (
                f"conv2d {name} {short(dtype)}",
                both_ways(lambda x, w, b, s=settings: functional.conv2d(x, w, b, **s), *inputs),
            )
        inner = [
            made(*shape_x).contiguous(memory_format=torch.channels_last),
            made(*shape_w, salt=1).contiguous(memory_format=torch.channels_last),
        ]
        yield f"conv2d {name} channels last", both_ways(lambda x, w, s=settings: functional.conv2d(x, w, **s), *inner)
    yield "conv2d dilated", both_ways(lambda x, w: functional.conv2d(x, w, dilation=2), made(2, 3, 9, 9, dtype=torch.float64), made(5, 3, 3, 3, salt=1, dtype=torch.float64))  # fmt: skip
    yield (
        "conv1d",
        both_ways(
            lambda x, w, b: functional.conv1d(x, w, b, padding=1), made(5, 12, 33), made(17, 12, 3, salt=1), made(17)
        ),
    )
    yield (
        "conv3d",
        both_ways(lambda x, w: functional.conv3d(x, w, padding=1), made(3, 4, 7, 7, 7), made(6, 4, 3, 3, 3, salt=1)),
    )
    yield (
        "conv_transpose2d",
        both_ways(
            lambda x, w: functional.conv_transpose2d(x, w, stride=2), made(4, 8, 7, 7), made(8, 12, 3, 3, salt=1)
        ),
    )
    for name, shape in {"": (9, 7, 5, 5), " wide": (4, 33, 8, 8)}.items():
        c = shape[1]
        for last in (False, True):
            x = made(*shape).contiguous(memory_format=torch.channels_last) if last else made(*shape)
            where = f"{name}{' channels last' if last else ''}"
            yield (
                f"batch_norm{where}",
                both_ways(
                    lambda x, w, b: functional.batch_norm(x, None, None, w, b, training=True), x, positive(c), made(c)
                ),
            )
            yield f"max_pool2d{where}", both_ways(lambda x: functional.max_pool2d(x, 2), x)
            yield f"avg_pool2d{where}", both_ways(lambda x: functional.avg_pool2d(x, 3, stride=2, padding=1), x)
            yield f"adaptive_avg_pool2d{where}", both_ways(lambda x: functional.adaptive_avg_pool2d(x, 2), x)
        plain = made(*shape)
        yield f"batch_norm evaluated{name}", both_ways(lambda x, w, b: functional.batch_norm(x, w.detach() * 0.5, w.detach(), w, b), plain, positive(c), made(c))  # fmt: skip
        yield f"instance_norm{name}", both_ways(lambda x: functional.instance_norm(x), plain)
        yield f"bilinear{name}", both_ways(lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear"), plain)
        yield f"nearest{name}", both_ways(lambda x: functional.interpolate(x, scale_factor=2), plain)
    yield (
        "batch_norm running",
        lambda: [functional.batch_norm(made(9, 7, 5, 5), m := made(7), v := positive(7), training=True), m, v],
    )
    yield (
        "batch_norm 1d",
        both_ways(
            lambda x, w, b: functional.batch_norm(x, None, None, w, b, training=True),
            made(33, 65),
            positive(65),
            made(65),
        ),
    )
    for rows, width in ((33, 65), (7, 1025), (65, 64)):
        for dtype in FLOATS:
            w, b = made(width, salt=1, dtype=dtype), made(width, salt=2, dtype=dtype)
            size = f"{rows}x{width} {short(dtype)}"
            yield (
                f"layer_norm {size}",
                both_ways(
                    lambda x, w, b: functional.layer_norm(x, x.shape[-1:], w, b), made(rows, width, dtype=dtype), w, b
                ),
            )
        yield (
            f"rms_norm {rows}x{width}",
            both_ways(lambda x, w: functional.rms_norm(x, x.shape[-1:], w), made(rows, width), made(width, salt=1)),
        )
    yield (
        "group_norm",
        both_ways(
            lambda x, w, b: functional.group_norm(x, 4, w, b), made(5, 12, 7, 7), made(12, salt=1), made(12, salt=2)
        ),
    )
    for shape in ((3, 4, 16, 16), (2, 5, 33, 24)):
        q, k, v = (made(*shape, salt=i) * 4 for i in range(3))
        size = "x".join(map(str, shape))
        yield f"attention {size}", both_ways(functional.scaled_dot_product_attention, q, k, v)
        yield (
            f"attention causal {size}",
            both_ways(lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True), q, k, v),
        )
    yield "attention masked", both_ways(lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, attn_mask=made(16, 16) > -0.5), *(made(3, 4, 16, 16, salt=i) for i in range(3)))  # fmt: skip
    yield "gru cell", both_ways(torch.gru_cell, made(9, 13), made(9, 17), made(51, 13, salt=1), made(51, 17, salt=2), made(51, salt=3), made(51, salt=4))  # fmt: skip
    yield "lstm cell", both_ways(lambda x, h, c, *w: torch.lstm_cell(x, [h, c], *w), made(9, 13), made(9, 17), made(9, 17, salt=1), made(68, 13, salt=1), made(68, 17, salt=2), made(68, salt=3), made(68, salt=4))  # fmt: skip
    yield "lstm without oneDNN", lstm
    yield "embedding", both_ways(lambda w: functional.embedding(whole(5, 33, below=17), w), made(17, 9))
    yield (
        "unfold",
        both_ways(
            lambda x: functional.fold(functional.unfold(x, 3, padding=1), (7, 7), 3, padding=1), made(3, 4, 7, 7)
        ),
    )


def lstm() -> list[Tensor]:
    layer = torch.nn.LSTM(13, 17, batch_first=True)
    with torch.backends.mkldnn.flags(enabled=False):
        out, _ = layer(made(3, 5, 13))
    out.sum().backward()
    return [out, *(p.grad for p in layer.parameters() if p.grad is not None)]


def losses() -> Iterator[tuple[str, Case]]:
    classes, target = whole(33, below=65), positive(33, 65, salt=3)
    for dtype in FULL:
        x = made(33, 65, dtype=dtype) * 8
        yield f"cross_entropy {short(dtype)}", both_ways(lambda x: functional.cross_entropy(x, classes).view(1), x)
        yield f"bce_with_logits {short(dtype)}", both_ways(lambda x: functional.binary_cross_entropy_with_logits(x, target.to(x.dtype), reduction="none"), x)  # fmt: skip
    yield (
        "cross_entropy smoothed",
        both_ways(
            lambda x: functional.cross_entropy(x, classes, label_smoothing=0.1, weight=positive(65)).view(1),
            made(33, 65),
        ),
    )
    yield (
        "cross_entropy of images",
        both_ways(lambda x: functional.cross_entropy(x, whole(3, 5, 5, below=7)).view(1), made(3, 7, 5, 5)),
    )
    yield "cross_entropy of shares", both_ways(lambda x: functional.cross_entropy(x, target).view(1), made(33, 65))
    yield (
        "kl_div",
        both_ways(lambda x: functional.kl_div(x.log_softmax(1), target, reduction="batchmean").view(1), made(33, 65)),
    )
    for name in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"):
        yield name, both_ways(functools.partial(_against, target, getattr(functional, name)), made(33, 65) * 3)


def _against(target: Tensor, loss: Callable[..., Any], x: Tensor) -> Any:
    return loss(x, target).view(1)
