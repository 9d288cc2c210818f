//! Convolution and pooling.
use super::float::{Real, in_precision};
use super::walk::View;
use super::*;
use crate::dim::Dim;
use crate::interp::Precision;
use crate::op::TypeError;
use crate::shape::strides;
use crate::tensor::Tensor;

/// Strides of symbolic extents beyond this are refused: each remainder is tried.
const LONGEST_SYMBOLIC_STRIDE: usize = 4096;

impl Operator for Window {
    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, TypeError> {
        let (x, kernel) = (args[0], args.get(1).copied());
        let spatial = self.size.len();
        check::rank(1, "`x`", x, spatial + 2)?;
        check::entries(1, "stride", self.stride.len(), spatial)?;
        check::entries(1, "padding", self.padding.len(), spatial)?;
        check::entries(1, "dilation", self.dilation.len(), spatial)?;
        let conv = self.kind == WindowKind::Conv;
        if conv != kernel.is_some() {
            let wanted = if conv { "a kernel" } else { "no kernel" };
            return Err(TypeError::new(2, format!("`{}` takes {wanted}", self.kind.text()))
                .expected_found(wanted, format!("{} operands", args.len())));
        }
        let positive = |list: &[usize]| list.iter().all(|&n| n > 0);
        if !(positive(&self.size) && positive(&self.stride) && positive(&self.dilation)) {
            return Err(TypeError::new(4, "size, stride and dilation must be positive"));
        }
        check::float(5, "`x`", x)?;
        let channels = &x.shape.0[1];
        let outputs = match kernel {
            Some(kernel) => self.check_kernel(x, kernel)?,
            None if self.groups != 1 => {
                return Err(TypeError::new(3, "pooling has one group").expected_found(1, self.groups));
            }
            None => channels.clone(),
        };
        let mut shape = vec![x.shape.0[0].clone(), outputs];
        for i in 0..spatial {
            shape.push(self.extent(i, &x.shape.0[i + 2])?);
        }
        Ok(TensorType { dtype: x.dtype, shape: Shape(shape) })
    }
    fn eval(&self, args: &[&Tensor], out: &TensorType, precision: Precision) -> Tensor {
        in_precision!(precision, slide(self, args[0], args.get(1).copied(), out))
    }
}

impl Window {
    /// Checks C2, C3 and C5 for a convolution; returns the number of output channels.
    fn check_kernel(&self, x: &TensorType, kernel: &TensorType) -> Result<Dim, TypeError> {
        check::rank(2, "the kernel", kernel, x.rank())?;
        check::float(5, "the kernel", kernel)?;
        if Shape(kernel.shape.0[2..].to_vec()) != Shape::new(&self.size) {
            return Err(TypeError::new(2, "the kernel's spatial extents differ from `size`")
                .expected_found(Shape::new(&self.size), &kernel.shape));
        }
        let groups = Dim::new(self.groups);
        let (channels, outputs) = (&x.shape.0[1], kernel.shape.0[0].clone());
        let Some(per_group) = channels.div_exact(&groups) else {
            return Err(TypeError::new(3, format!("{} groups do not divide {channels} channels", self.groups)));
        };
        if outputs.div_exact(&groups).is_none() {
            return Err(TypeError::new(3, format!("{} groups do not divide {outputs} outputs", self.groups)));
        }
        if kernel.shape.0[1] != per_group {
            return Err(TypeError::new(3, "the kernel's second extent must be channels / groups")
                .expected_found(per_group, &kernel.shape));
        }
        Ok(outputs)
    }
    /// The result's extent along spatial axis `i`: ⌊(n + padding − dilation·(size − 1) − 1) / stride⌋ + 1.
    fn extent(&self, i: usize, n: &Dim) -> Result<Dim, TypeError> {
        let (before, after) = self.padding[i];
        let span = self.dilation[i].saturating_mul(self.size[i] - 1).saturating_add(1);
        if self.kind == WindowKind::Max && (before >= span || after >= span) {
            return Err(TypeError::new(5, format!("`max` pads less than a window, spatial axis {i}"))
                .expected_found(format!("less than {span}"), format!("{before}:{after}")));
        }
        let padded = n + &Dim::new(before.saturating_add(after));
        let stride = Dim::new(self.stride[i]);
        let room = &padded - &Dim::new(span);
        if padded.symbols().is_empty() {
            let Some(room) = room.get() else {
                return Err(TypeError::new(4, format!("spatial axis {i} is narrower than a window"))
                    .expected_found(format!("at least {span}"), padded));
            };
            return Ok(Dim::new(room / self.stride[i] + 1));
        }
        // Symbolic: the quotient is exact after taking off the constant remainder.
        (0..self.stride[i].min(LONGEST_SYMBOLIC_STRIDE))
            .find_map(|rest| (&room - &Dim::new(rest)).div_exact(&stride))
            .map(|q| &q + &Dim::new(1))
            .ok_or_else(|| {
                TypeError::new(4, format!("stride {stride} of the symbolic extent {padded} has no exact result"))
            })
    }
}

/// For each result plane, adds tap by tap: channels in order, taps in row-major order.
fn slide<R: Real>(op: &Window, x: &Tensor, kernel: Option<&Tensor>, out: &TensorType) -> Tensor {
    let (x_sizes, y_sizes) = (x.sizes(), out.shape.sizes());
    let (x_plane, y_plane): (usize, usize) = (x_sizes[2..].iter().product(), y_sizes[2..].iter().product());
    let (channels, outputs) = (x_sizes[1], y_sizes[1]);
    let from = R::slice(&x.data);
    let weights = kernel.map(|k| R::slice(&k.data));
    let start = match op.kind {
        WindowKind::Conv | WindowKind::Sum => R::from_f64(0.0),
        WindowKind::Max => R::from_f64(f64::NEG_INFINITY),
    };
    let taps = taps(op, &x_sizes[2..], &y_sizes[2..]);
    let mut y = vec![start; y_sizes.iter().product()];
    for plane in 0..y_sizes[0] * outputs {
        let (n, o) = (plane / outputs, plane % outputs);
        let to = &mut y[plane * y_plane..][..y_plane];
        // Which channels a result channel reads, and where its kernel begins.
        let (first, count) = match op.kind {
            WindowKind::Conv => (o / (outputs / op.groups) * (channels / op.groups), channels / op.groups),
            WindowKind::Sum | WindowKind::Max => (o, 1),
        };
        for c in 0..count {
            let image = &from[(n * channels + first + c) * x_plane..][..x_plane];
            for (t, tap) in taps.iter().enumerate() {
                let weight = weights.map(|w| w[(o * count + c) * taps.len() + t]);
                match (op.kind, weight) {
                    (WindowKind::Max, _) => tap.apply(to, image, |y, x| if x > y { x } else { y }),
                    (WindowKind::Conv | WindowKind::Sum, Some(w)) => tap.apply(to, image, |y, x| y.add(w.mul(x))),
                    (WindowKind::Conv | WindowKind::Sum, None) => tap.apply(to, image, |y, x| y.add(x)),
                }
            }
        }
    }
    Tensor::new(out.clone(), R::data(y.into_iter().map(|v| v.rounded(out.dtype)).collect()))
}

/// One tap of the window: the results it reaches inside the image, and the elements it reads for them.
struct Tap {
    /// (first result, first element) of each innermost row.
    rows: Vec<(usize, usize)>,
    /// Results in a row.
    width: usize,
    /// From one element of a row to the next.
    step: usize,
}

impl Tap {
    fn apply<R: Real>(&self, to: &mut [R], from: &[R], f: impl Fn(R, R) -> R) {
        for &(y, x) in &self.rows {
            let line = &mut to[y..y + self.width];
            line.iter_mut().zip(from[x..].iter().step_by(self.step)).for_each(|(y, x)| *y = f(*y, *x));
        }
    }
}

fn taps(op: &Window, x: &[usize], y: &[usize]) -> Vec<Tap> {
    let axes = op.size.len();
    let (x_steps, y_steps) = (strides(x), strides(y));
    let tap = |t: usize| {
        let mut rest = t;
        let mut to = View { offset: 0, sizes: vec![0; axes], steps: y_steps.clone() };
        let mut from = View { offset: 0, sizes: vec![0; axes], steps: vec![0; axes] };
        for a in (0..axes).rev() {
            let shift = rest % op.size[a] * op.dilation[a]; // position in the padded image, for result 0
            rest /= op.size[a];
            let before = op.padding[a].0;
            let first = before.saturating_sub(shift).div_ceil(op.stride[a]);
            // Results i with i·stride + shift < before + extent.
            let end = (before + x[a]).saturating_sub(shift).div_ceil(op.stride[a]).min(y[a]);
            let count = end.saturating_sub(first);
            (to.sizes[a], from.sizes[a]) = (count, count);
            from.steps[a] = op.stride[a] * x_steps[a];
            if count > 0 {
                to.offset += first * y_steps[a];
                from.offset += (first * op.stride[a] + shift - before) * x_steps[a];
            }
        }
        let (mut starts, mut rows) = (Vec::new(), Vec::new());
        from.rows(|x| starts.push(x));
        to.rows(|y| rows.push((y, starts[rows.len()])));
        let (width, step) = from.row();
        Tap { rows, width, step }
    };
    (0..op.size.iter().product()).map(tap).collect()
}
