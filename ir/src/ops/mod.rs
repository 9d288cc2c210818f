//! The list of operators, in reading order. Everything about an operator follows from its entry here, its
//! `infer` and `eval` (core) or its `expand` (composite).

mod attention;
mod check;
pub mod composite;
pub mod contract;
mod float;
pub mod index;
pub mod layout;
pub mod leaf;
pub mod map;
mod norm;
pub mod reduce;
pub mod scan;
mod token;
mod walk;
pub mod window;

use crate::attr::{Attr, AttrKind, AttrValue, Literal, words};
use crate::dtype::DType;
use crate::op::{OpClass, Operator, operators};
use crate::scalar::{Body, F64};
use crate::shape::{Shape, TensorType};
use crate::spec::ContractSpec;

words! {
    /// How a reduction combines elements.
    ReduceKind {
        /// Σ, accumulated in f32 for floats; integers wrap.
        Sum = "sum",
        /// Π, as `sum`.
        Prod = "prod",
        /// Largest; a NaN is left out.
        Max = "max",
        /// Smallest; a NaN is left out.
        Min = "min",
        /// Index of the largest, as i32; ties go to the lowest index, and a NaN counts as −∞.
        Argmax = "argmax",
        /// Index of the smallest, as i32; ties go to the lowest index, and a NaN counts as ∞.
        Argmin = "argmin",
    }
}

words! {
    /// What a cumulative scan accumulates.
    ScanKind {
        /// Running sum.
        Sum = "sum",
        /// Running product.
        Prod = "prod",
        /// Running maximum.
        Max = "max",
        /// Running minimum.
        Min = "min",
    }
}

words! {
    /// What a window computes.
    WindowKind {
        /// Cross-correlation with a kernel (what deep learning calls convolution).
        Conv = "conv",
        /// Σ over the window; padding counts as 0.
        Sum = "sum",
        /// Largest over the window; padding is left out (a dilated window of nothing but padding gives −∞).
        Max = "max",
    }
}

words! {
    /// How scatter combines an update with what is there.
    ScatterKind {
        /// Adds, in index order.
        Add = "add",
        /// Overwrites; the last update in index order wins.
        Set = "set",
    }
}

words! {
    /// How resize picks values.
    ResizeKind {
        /// Source index floor(i · n / m).
        Nearest = "nearest",
        /// Linear in each axis, half-pixel centres, edges clamped (PyTorch's `align_corners=False`).
        Linear = "linear",
    }
}

words! {
    /// The shape of a local attention window.
    LocalKind {
        /// dy² + dx² < radius² (CLEAR's mask).
        Circle = "circle",
        /// |dy| < radius and |dx| < radius.
        Square = "square",
    }
}

operators! {
    /// A parameter of the function, by name. Written in the function's header only.
    Input = "input" Leaf () {
        /// Its name; inputs of schedule functions are bound by it.
        name: String,
        /// Its type.
        ty: TensorType,
    }
    /// A weight of the module, by checkpoint name.
    /// C1 the module declares the weight with this type (checked by the verifier).
    Weight = "weight" Leaf () {
        /// Name in the module's weight table.
        name: String,
        /// Its type.
        ty: TensorType,
    }
    /// The value of a state variable when the call starts. It is written by being returned.
    /// C1 the module declares the state with this type (checked by the verifier).
    State = "state" Leaf () {
        /// Name in the module's state table.
        name: String,
        /// Its type.
        ty: TensorType,
    }
    /// A constant tensor.
    /// C1 the elements fill the type exactly.
    /// C2 the dtype is plain and the shape has no symbols.
    Const = "const" Leaf () {
        /// The elements.
        data: Literal,
        /// Its type.
        ty: TensorType,
    }
    /// The index along an axis: element (i₀, i₁, …) is i_axis.
    /// C1 the axis exists.
    /// C2 the dtype is f32, i32 or u32.
    Iota = "iota" Leaf () {
        /// Axis whose index is taken.
        axis: usize,
        /// The type.
        ty: TensorType,
    }

    /// Applies a scalar body to each element of its operands.
    /// C1 all operands have one shape (broadcasts are explicit).
    /// C2 the body takes as many arguments as there are operands, and is well-typed for their dtypes.
    Map = "map" Map ("xs*") {
        /// What is computed for one element.
        body: Body,
    }

    /// Combines elements along axes; the axes vanish. An empty axis gives the neutral element.
    /// C1 axes exist, are sorted and distinct.
    /// C2 the dtype is f32, f16, bf16, i32 or u32 (`max` and `min` also take bool).
    /// C3 `argmax` and `argmin` take exactly one axis, not empty; `max` and `min` take axes that are not empty.
    Reduce = "reduce" Reduce ("x") {
        /// How elements combine.
        kind: ReduceKind,
        /// Axes that vanish.
        axes: Vec<usize>,
    }

    /// Sums products over matched axes: einsum of two operands, accumulated in f32.
    /// C1 no letter occurs twice in one term.
    /// C2 each letter is batch (both operands and result), row or column (one operand and result) or summed (both operands).
    /// C3 letters match the operands' ranks, and a letter has one extent.
    /// C4 operands are f32, f16 or bf16 (they may differ), and so is the result.
    Contract = "contract" Contract ("a", "b") {
        /// Axis letters.
        spec: ContractSpec,
        /// The result's dtype.
        dtype: DType,
    }

    /// Slides a window over the trailing spatial axes: `x` is [N, C, spatial…]. `conv` takes a kernel
    /// [O, C/groups, size…] and sums products, accumulated in f32; pooling takes none and keeps channels.
    /// C1 `x` has rank 2 plus the number of spatial axes; all attribute lists have one entry for each.
    /// C2 a kernel is given exactly for `conv`, has `x`'s rank, and its spatial extents equal `size`.
    /// C3 groups divide channels and outputs, the kernel's second extent is C/groups; pooling has one group.
    /// C4 stride, dilation and size are positive, and the padded input is at least one window wide.
    /// C5 floats (kernel and `x` may differ in dtype; the result has `x`'s); `max` pads less than a window on each side.
    Window = "window" Window ("x", "kernel?") {
        /// What is computed.
        kind: WindowKind,
        /// Window extents, one a spatial axis.
        size: Vec<usize>,
        /// Steps between windows.
        stride: Vec<usize>,
        /// Zeros before and after each spatial axis.
        padding: Vec<(usize, usize)>,
        /// Steps between taps.
        dilation: Vec<usize>,
        /// Channel groups of a convolution.
        groups: usize,
    }

    /// Accumulates along one axis: result i combines elements 0..=i, in order, in f32 for floats.
    /// C1 the axis exists.
    /// C2 the dtype is f32, f16, bf16, i32 or u32.
    Scan = "scan" Scan ("x") {
        /// What is accumulated.
        kind: ScanKind,
        /// Axis along which.
        axis: usize,
        /// Runs from the end instead.
        reverse: bool,
        /// Result i leaves element i out; the first result is the neutral element (of `max` and `min` the lowest
        /// and the highest finite value of the dtype).
        exclusive: bool,
    }

    /// Permutes axes: result axis i is operand axis perm[i].
    /// C1 `perm` is a permutation of the operand's axes.
    /// C2 the dtype is plain.
    Transpose = "transpose" View ("x") {
        /// Source axis of each result axis.
        perm: Vec<usize>,
    }
    /// The same elements in row-major order under another shape.
    /// C1 the number of elements is equal.
    /// C2 the dtype is plain.
    Reshape = "reshape" View ("x") {
        /// The new shape.
        shape: Shape,
    }
    /// Repeats along new or unit axes: operand axis i becomes result axis axes[i].
    /// C1 `axes` has one entry for each operand axis, rising, each an axis of the result.
    /// C2 an operand extent equals the result's, or is 1.
    /// C3 the dtype is plain.
    Broadcast = "broadcast" View ("x") {
        /// The new shape.
        shape: Shape,
        /// Result axis of each operand axis.
        axes: Vec<usize>,
    }
    /// Every step-th element from start up to (not including) end, along each axis.
    /// C1 the lists have one entry for each axis.
    /// C2 start ≤ end ≤ extent and step ≥ 1; an axis of symbolic extent is kept whole (start 0, step 1, end
    /// 1099511627775, which specialisation replaces by the extent).
    /// C3 the dtype is plain.
    Slice = "slice" View ("x") {
        /// First index, one an axis.
        start: Vec<usize>,
        /// End index, exclusive.
        end: Vec<usize>,
        /// Step.
        step: Vec<usize>,
    }
    /// Adds elements before and after each axis.
    /// C1 one pair (before, after) for each axis.
    /// C2 the dtype is plain; the value is whole for integers, 0 or 1 for bool.
    Pad = "pad" View ("x") {
        /// Elements added (before, after).
        padding: Vec<(usize, usize)>,
        /// Their value.
        value: F64,
    }
    /// Joins along an axis.
    /// C1 the axis exists, dtypes are equal and plain, and all other extents are equal.
    Concat = "concat" View ("xs*") {
        /// Axis along which.
        axis: usize,
    }

    /// Picks slices of `x` along `axis` by index: with `batch` leading axes shared by `x` and `indices`,
    /// the result's shape is x[..axis] ++ indices[batch..] ++ x[axis+1..]. Embedding lookup is axis 0, batch 0;
    /// picking along an axis has all axes before it as batch. Indices are clamped to the axis.
    /// C1 batch ≤ axis < rank of `x`, batch ≤ rank of `indices`, and the batch extents are equal.
    /// C2 indices are i32 or u32, and the axis is not empty.
    /// C3 the dtype of `x` is plain.
    Gather = "gather" Index ("x", "indices") {
        /// Axis of `x` that is indexed.
        axis: usize,
        /// Leading axes that both share.
        batch: usize,
    }
    /// Writes slices of `updates` into `x` along `axis`: the mirror of gather. Updates are applied in
    /// row-major order of `indices`; an index outside the axis is left out.
    /// C1 as gather's C1.
    /// C2 `updates` has the shape that gather would give, and `x`'s dtype.
    /// C3 indices are i32 or u32; `x` is f32, f16, bf16, i32 or u32.
    Scatter = "scatter" Index ("x", "indices", "updates") {
        /// How an update combines with what is there.
        kind: ScatterKind,
        /// Axis of `x` that is indexed.
        axis: usize,
        /// Leading axes that all share.
        batch: usize,
    }
    /// Indices of the k largest (or smallest) elements along an axis, best first, as i32; ties go to the lowest
    /// index, and a NaN counts as the worst infinity.
    /// C1 the axis exists and k is at most its extent.
    /// C2 the dtype is f32, f16, bf16, i32 or u32.
    Topk = "topk" Index ("x") {
        /// How many.
        k: usize,
        /// Axis along which.
        axis: usize,
        /// Largest rather than smallest.
        largest: bool,
    }

    /// eˣ / Σ eˣ along an axis, computed from x − max.
    /// C1 the axis exists and is not empty; the dtype is a float.
    Softmax = "softmax" Composite ("x") {
        /// Axis that sums to 1.
        axis: usize,
    }
    /// (x − mean) / √(variance + eps) over the last axis, times scale, plus bias.
    /// C1 the dtype is a float, the rank at least 1, scale and bias (if any) have the last axis' extent.
    LayerNorm = "layer_norm" Composite ("x", "scale?", "bias?") {
        /// Added to the variance.
        eps: F64,
    }
    /// x / √(mean(x²) + eps) over the last axis, times scale.
    /// C1 as layer_norm's C1.
    RmsNorm = "rms_norm" Composite ("x", "scale?") {
        /// Added to the mean square.
        eps: F64,
    }
    /// Normalises [N, C, spatial…] over each group of channels and all spatial axes; scale and bias are [C].
    /// C1 the dtype is a float, the rank at least 2, groups divide C, scale and bias (if any) have shape [C].
    GroupNorm = "group_norm" Composite ("x", "scale?", "bias?") {
        /// Number of groups.
        groups: usize,
        /// Added to the variance.
        eps: F64,
    }
    /// softmax(q·kᵀ·scale + mask)·v for q [B,H,N,D], k [B,H,M,D], v [B,H,M,E]. A bool mask keeps where true (a row
    /// with nothing kept gives 0); a float mask is added. The mask broadcasts to [B,H,N,M] from rank 4.
    /// C1 q, k, v have rank 4, matching batch, heads, keys and head size, and one float dtype.
    /// C2 the mask (if any) is bool or the operands' dtype, of rank 4, each extent equal or 1.
    Attention = "attention" Composite ("q", "k", "v", "mask?") {
        /// Multiplies the scores.
        scale: F64,
        /// Query i sees keys 0..=i only.
        causal: bool,
    }
    /// Attention on `text` dense tokens followed by a height × width token grid: an image query sees the text and the
    /// image keys within `radius` of it; text queries see everything. Operands as attention's.
    /// C1 as attention's C1, with N = M = text + height·width.
    LocalAttention = "local_attention" Composite ("q", "k", "v") {
        /// Multiplies the scores.
        scale: F64,
        /// Leading dense tokens.
        text: usize,
        /// Grid rows.
        height: usize,
        /// Grid columns.
        width: usize,
        /// Window radius, in tokens.
        radius: usize,
        /// Window shape.
        shape: LocalKind,
    }
    /// Rotates pairs of the last axis: x·cos + rot(x)·sin. `cos` and `sin` are [N, D] for x [B,H,N,D].
    /// Interleaved pairs are (2i, 2i+1); otherwise (i, i + D/2).
    /// C1 x has rank 4, D is even, cos and sin are [N, D]; all have one float dtype.
    Rope = "rope" Composite ("x", "cos", "sin") {
        /// Pairs are neighbours.
        interleaved: bool,
    }
    /// Mean over blocks of a token grid: [B, height·width, C] to [B, (height/block)·(width/block), C].
    /// C1 x has rank 3 and height·width tokens, the block divides both sides; the dtype is a float.
    PoolTokens = "pool_tokens" Composite ("x") {
        /// Grid rows.
        height: usize,
        /// Grid columns.
        width: usize,
        /// Side of a block.
        block: usize,
    }
    /// Resizes the trailing spatial axes of [N, C, spatial…].
    /// C1 the rank is 2 plus the entries of `size`, no extent is 0, spatial extents are at most 65536, shapes have no
    /// symbols, the dtype is a float.
    Resize = "resize" Composite ("x") {
        /// How values are picked.
        kind: ResizeKind,
        /// New spatial extents.
        size: Vec<usize>,
    }
}

impl Op {
    /// Group of the operator.
    pub fn class(&self) -> OpClass {
        self.kind().class()
    }
    /// The result's type for operands of these types.
    ///
    /// # Errors
    /// The violated constraint; constraint 0 is a wrong number of operands.
    pub fn infer(&self, args: &[&TensorType]) -> Result<TensorType, crate::op::TypeError> {
        let operands = self.kind().operands();
        let (least, most) = crate::op::arity(operands);
        if args.len() < least || args.len() > most {
            let expected = match (least, most) {
                (a, b) if a == b => format!("{a}"),
                (a, usize::MAX) => format!("at least {a}"),
                (a, b) => format!("{a} to {b}"),
            };
            return Err(crate::op::TypeError::new(0, "wrong number of operands")
                .expected_found(format!("{expected} ({})", operands.join(", ")), args.len()));
        }
        self.as_operator().infer(args)
    }
    /// The reference value; `out` is the inferred type.
    pub fn eval(
        &self,
        args: &[&crate::tensor::Tensor],
        out: &TensorType,
        precision: crate::interp::Precision,
    ) -> crate::tensor::Tensor {
        self.as_operator().eval(args, out, precision)
    }
}
