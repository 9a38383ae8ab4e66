"""The operators that level `portable` covers: each is reached by a case of `cases`, which `nox -s portability` proves.

Names are torch's own (https://docs.pytorch.org/docs/stable/torch.compiler_ir.html), without overload and without the `_` of an operator
that works in place. What is built from these alone (`linear`, `dropout`, `cross_entropy`, `scaled_dot_product_attention`) is covered too.
"""

GROUPS = {
    "one value at a time": """
        abs ceil celu clamp clamp_max clamp_min cos elu erf erfc erfinv exp exp2 expm1 floor frac gelu
        hardsigmoid hardswish hardtanh isinf isnan isneginf leaky_relu log log1p log_sigmoid_forward logit nan_to_num neg
        pow reciprocal relu round rsqrt sgn sigmoid sign silu sin softplus softshrink sqrt tanh trunc""",
    "two or more values": """
        __lshift__ __rshift__ add addcdiv addcmul bitwise_and bitwise_not bitwise_or bitwise_xor copysign div eq floor_divide
        fmax fmin fmod ge gt isin le lerp logical_and logical_not logical_or logical_xor lt maximum minimum mul ne
        remainder rsub sub where xlogy""",
    "reductions": """
        _log_softmax _safe_softmax _softmax all amax amin aminmax any argmax argmin bincount count_nonzero cumprod cumsum
        kthvalue linalg_vector_norm logsumexp max mean median min prod sort std sum topk var var_mean""",
    "matrices": "addmm addmv baddbmm bmm dot mm mv vdot",
    "layers": """
        _adaptive_avg_pool2d _convolution _slow_conv2d_forward avg_pool2d convolution embedding max_pool2d_with_indices
        mkldnn_convolution native_batch_norm native_group_norm native_layer_norm slow_conv_dilated2d upsample_bilinear2d
        upsample_nearest2d im2col col2im""",
    "losses": """
        binary_cross_entropy_with_logits huber_loss mse_loss nll_loss2d_forward nll_loss_forward
        smooth_l1_loss""",
    "backward": """
        _adaptive_avg_pool2d_backward _log_softmax_backward_data _slow_conv2d_backward _softmax_backward_data avg_pool2d_backward
        convolution_backward diagonal_backward elu_backward embedding_dense_backward gelu_backward
        hardsigmoid_backward hardswish_backward hardtanh_backward huber_loss_backward leaky_relu_backward log_sigmoid_backward
        logit_backward masked_scatter_backward max_pool2d_with_indices_backward mse_loss_backward native_batch_norm_backward native_group_norm_backward
        native_layer_norm_backward nll_loss2d_backward nll_loss_backward reflection_pad1d_backward replication_pad1d_backward
        select_backward sigmoid_backward silu_backward slice_backward smooth_l1_loss_backward softplus_backward softshrink_backward tanh_backward
        threshold_backward unfold_backward upsample_bilinear2d_backward upsample_nearest2d_backward""",
    "indices": """
        _index_put_impl _unique2 bucketize gather index index_add index_copy index_fill index_put index_select masked_fill
        masked_scatter masked_select nonzero scatter scatter_add scatter_reduce""",
    "what moves values": """
        _local_scalar_dense _reshape_alias _to_copy _unsafe_view alias as_strided cat clone constant_pad_nd copy detach diag_embed diagonal
        equal expand fill flip is_same_size lift_fresh permute reflection_pad1d repeat replication_pad1d resize resize_as roll rot90 select set slice split
        split_with_sizes squeeze stack t transpose tril triu unbind unfold unsafe_split unsqueeze view zero""",
    "what is made": """
        arange empty empty_like empty_strided eye full full_like linspace logspace new_empty new_full new_ones new_zeros
        ones ones_like scalar_tensor zeros zeros_like""",
    "draws": """
        bernoulli normal rand rand_like randint randint_like randn randn_like random randperm uniform""",
    "updates": """
        _foreach_add _foreach_addcdiv _foreach_addcmul _foreach_clamp_max _foreach_clamp_min _foreach_div _foreach_lerp
        _foreach_maximum _foreach_mul _foreach_norm _foreach_sqrt _fused_adagrad _fused_adam _fused_adamw _fused_sgd""",
}
# They compute nothing: a check, bytes between ranks (never `allreduce`, whose order of sums is not fixed), and what a profiler marks.
MARKS = """
    _assert_async _is_all_true _is_any_true
    c10d::allgather c10d::_allgather_base c10d::barrier c10d::broadcast c10d::recv c10d::send
    profiler::_record_function_enter profiler::_record_function_enter_new profiler::_record_function_exit"""
LISTED = frozenset(name for names in (*GROUPS.values(), MARKS) for name in names.split())

# Whose own kernels give other bits elsewhere: what computes them instead, why, and what that costs. `kernels` has the code.
REROUTED = {
    "addmm addmv baddbmm bmm dot mm mv vdot": (
        "OpenBLAS, which NumPy brings, told which kernels to take (`OPENBLAS_CORETYPE=Haswell`: AVX2 and FMA, the same blocks on every CPU)",
        "MKL's are the same on every CPU only in its slowest mode (`MKL_CBWR=COMPATIBLE`: 1.8 to 3.1 times a step of the models here)",
        "the time of MKL's on AMD, 1.2 to 1.5 times on Intel; the way through Python, 8 µs a call",
    ),
    "pow sqrt": (
        "NumPy's root, the instruction that IEEE 754 rounds; `pow` of other exponents than 0.5 is torch's own",
        "MKL's, in that mode, starts from an approximate reciprocal root, whose result AMD and Intel define differently",
        "6 µs a call",
    ),
    "log": (
        "of float64, torch's `xlogy(1, x)`; of float32, torch's own",
        "MKL's starts from an approximate reciprocal: one value in a million differed",
        "not measured",
    ),
    "elu erfinv gelu gelu_backward normal softplus": (
        "the same formulas, by torch's vector functions",
        (
            "of other types than float32, not contiguous, at the ends of vectors, or always, they call functions of the C library: "
            "`erf`, `tanh`, `expm1`, `log1p`, which glibc 2.41 has changed"
        ),
        "2 to 5 times the time of that operator; nothing for gelu of float32, and normal of 16 float32 values or more",
    ),
}

CHANGED = "it calls a function of the C library that glibc has changed"
APPROXIMATE = "MKL's starts from an approximate instruction, whose result AMD and Intel define differently"
# Why some that people meet are not listed, and what to do instead.
INSTEAD = {
    **dict.fromkeys(("acos", "asin", "atan", "log10", "log2", "tan"), APPROXIMATE),
    **dict.fromkeys(
        (
            "asinh",
            "atan2",
            "atanh",
            "binary_cross_entropy",
            "cosh",
            "digamma",
            "exponential",
            "hypot",
            "lgamma",
            "logaddexp",
            "mish",
            "multinomial",
            "sinh",
        ),
        CHANGED,
    ),
    "mkldnn_rnn_layer": "oneDNN's recurrent layers differ between CPUs: call yours under `with torch.backends.mkldnn.flags(enabled=False):`",
    "_scaled_dot_product_flash_attention_for_cpu": "its products are MKL's: leave torch.nn.attention.sdpa_kernel to this level",
}
# Of listed operators alone: unlisted operator → a call of it, and what to write. Textbook's formulas, less precise near 0 or at the ends
# of the range than torch's own.
WRITE = {
    "tan": ("tan(x)", "x.sin() / x.cos()"),
    "log2": ("log2(x)", "x.log() / math.log(2)"),
    "log10": ("log10(x)", "x.log() / math.log(10)"),
    "sinh": ("sinh(x)", "(x.exp() - (-x).exp()) / 2"),
    "cosh": ("cosh(x)", "(x.exp() + (-x).exp()) / 2"),
    "asinh": ("asinh(x)", "x.sign() * (x.abs() + (x * x + 1).sqrt()).log()"),
    "atanh": ("atanh(x)", "((1 + x) / (1 - x)).log() / 2"),
    "hypot": ("hypot(x, y)", "(x * x + y * y).sqrt()"),
    "logaddexp": ("logaddexp(x, y)", "torch.stack([x, y]).logsumexp(0)"),
    "mish": ("mish(x)", "x * functional.softplus(x).tanh()"),
    "binary_cross_entropy": ("binary_cross_entropy(x.sigmoid(), y)", "functional.binary_cross_entropy_with_logits(x, y)"),
    "exponential": ("x.exponential_()", "-(1 - torch.rand_like(x)).log()"),
    "multinomial": ("multinomial(p, 1)", "(p.log() - (-torch.rand_like(p).log()).log()).argmax(-1)"),
    "glu": ("glu(x)", "x.chunk(2, -1)[0] * x.chunk(2, -1)[1].sigmoid()"),
    "_prelu_kernel": ("prelu(x, w)", "torch.where(x > 0, x, w * x)"),
    "pixel_shuffle": ("pixel_shuffle(x, r)", "x.unflatten(1, (-1, r, r)).permute(0, 1, 4, 2, 5, 3).flatten(4).flatten(2, 3)"),
    "take": ("take(x, i)", "x.flatten()[i]"),
    "allclose": ("allclose(x, y)", "((x - y).abs() <= tolerance).all()"),
    "reflection_pad2d": ('pad(x, (1, 1, 1, 1), mode="reflect")', "x[..., rows, :][..., columns]"),
}  # fmt: skip
