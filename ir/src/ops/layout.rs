//! Views: index arithmetic only.
use super::walk::View;
use super::*;
use crate::dim::Dim;
use crate::interp::Precision;
use crate::op::TypeError;
use crate::shape::strides;
use crate::tensor::{Data, Tensor};

impl Operator for Transpose {
    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, TypeError> {
        let x = args[0];
        let mut sorted = self.perm.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..x.rank()) {
            return Err(TypeError::new(1, "`perm` is not a permutation of the axes")
                .expected_found(format!("a permutation of 0..{}", x.rank()), format!("{:?}", self.perm)));
        }
        check::plain(2, x)?;
        Ok(TensorType { dtype: x.dtype, shape: Shape(self.perm.iter().map(|&p| x.shape.0[p].clone()).collect()) })
    }
    fn eval(&self, args: &[&Tensor], out: &TensorType, _: Precision) -> Tensor {
        Tensor::new(out.clone(), View::permuted(&args[0].sizes(), &self.perm).read_data(&args[0].data))
    }
}

impl Operator for Reshape {
    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, TypeError> {
        let x = args[0];
        if x.shape.elements() != self.shape.elements() {
            return Err(TypeError::new(1, format!("{x} does not have as many elements as {}", self.shape))
                .expected_found(self.shape.elements(), x.shape.elements()));
        }
        check::plain(2, x)?;
        Ok(TensorType { dtype: x.dtype, shape: self.shape.clone() })
    }
    fn eval(&self, args: &[&Tensor], out: &TensorType, _: Precision) -> Tensor {
        Tensor::new(out.clone(), args[0].data.clone())
    }
}

impl Operator for Broadcast {
    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, TypeError> {
        let x = args[0];
        let rising = self.axes.windows(2).all(|w| w[0] < w[1]);
        if self.axes.len() != x.rank() || !rising || self.axes.iter().any(|&a| a >= self.shape.rank()) {
            return Err(TypeError::new(1, "`axes` must give a rising result axis for each operand axis")
                .expected_found(
                    format!("{} rising axes below {}", x.rank(), self.shape.rank()),
                    format!("{:?}", self.axes),
                ));
        }
        for (dim, &axis) in x.shape.0.iter().zip(&self.axes) {
            if *dim != self.shape.0[axis] && !dim.is_one() {
                return Err(TypeError::new(2, format!("{x} does not broadcast to {}, result axis {axis}", self.shape))
                    .expected_found(&self.shape.0[axis], dim));
            }
        }
        check::plain(3, x)?;
        Ok(TensorType { dtype: x.dtype, shape: self.shape.clone() })
    }
    fn eval(&self, args: &[&Tensor], out: &TensorType, _: Precision) -> Tensor {
        let (from, sizes) = (args[0].sizes(), out.shape.sizes());
        let mut steps = vec![0; sizes.len()];
        for ((&axis, &extent), step) in self.axes.iter().zip(&from).zip(strides(&from)) {
            steps[axis] = if extent == 1 { 0 } else { step };
        }
        Tensor::new(out.clone(), View { offset: 0, sizes, steps }.read_data(&args[0].data))
    }
}

impl Slice {
    /// `end` of an axis of symbolic extent, which is kept whole: the largest number of the text form.
    pub const WHOLE: usize = (1 << 40) - 1;

    /// The slice start..end (step 1) of one axis of `x`, all others whole.
    pub fn of_axis(x: &TensorType, axis: usize, start: usize, end: usize) -> Slice {
        let mut slice = Slice {
            start: vec![0; x.rank()],
            end: x.shape.0.iter().map(|d| d.get().unwrap_or(Slice::WHOLE)).collect(),
            step: vec![1; x.rank()],
        };
        if axis < x.rank() {
            slice.start[axis] = start;
            slice.end[axis] = end;
        }
        slice
    }
}

impl Operator for Slice {
    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, TypeError> {
        let x = args[0];
        check::entries(1, "start", self.start.len(), x.rank())?;
        check::entries(1, "end", self.end.len(), x.rank())?;
        check::entries(1, "step", self.step.len(), x.rank())?;
        let mut shape = Vec::with_capacity(x.rank());
        for (i, dim) in x.shape.0.iter().enumerate() {
            let (start, end, step) = (self.start[i], self.end[i], self.step[i]);
            let fits = match dim.get() {
                Some(n) => start <= end && end <= n && step >= 1,
                None => start == 0 && end == Slice::WHOLE && step == 1,
            };
            if !fits {
                return Err(TypeError::new(2, format!("slice {start}..{end} step {step} of axis {i} of {x}"))
                    .expected_found(
                        match dim.get() {
                            Some(n) => format!("0 ≤ start ≤ end ≤ {n} and step ≥ 1"),
                            None => "the whole axis, as its extent is symbolic".to_string(),
                        },
                        format!("{start}..{end} step {step}"),
                    ));
            }
            shape.push(if dim.get().is_some() { Dim::new((end - start).div_ceil(step)) } else { dim.clone() });
        }
        check::plain(3, x)?;
        Ok(TensorType { dtype: x.dtype, shape: Shape(shape) })
    }
    fn eval(&self, args: &[&Tensor], out: &TensorType, _: Precision) -> Tensor {
        let steps = strides(&args[0].sizes());
        let offset = steps.iter().zip(&self.start).map(|(a, b)| a * b).sum();
        let steps = steps.iter().zip(&self.step).map(|(a, b)| a * b).collect();
        Tensor::new(out.clone(), View { offset, sizes: out.shape.sizes(), steps }.read_data(&args[0].data))
    }
}

impl Operator for Pad {
    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, TypeError> {
        let x = args[0];
        check::entries(1, "padding", self.padding.len(), x.rank())?;
        check::plain(2, x)?;
        let value = self.value.0;
        let (fits, wanted) = match x.dtype {
            DType::F32 | DType::F16 | DType::BF16 | DType::Packed(_) => (true, "a number"),
            DType::I32 => (value == value as i32 as f64, "a whole i32"),
            DType::U32 => (value == value as u32 as f64, "a whole u32"),
            DType::Bool => (value == 0.0 || value == 1.0, "0 or 1"),
        };
        if !fits {
            return Err(TypeError::new(2, format!("{value} is no {} value", x.dtype)).expected_found(wanted, value));
        }
        let dims = x.shape.0.iter().zip(&self.padding);
        let shape = dims.map(|(d, &(before, after))| d + &Dim::new(before.saturating_add(after))).collect();
        Ok(TensorType { dtype: x.dtype, shape: Shape(shape) })
    }
    fn eval(&self, args: &[&Tensor], out: &TensorType, precision: Precision) -> Tensor {
        let fill = Tensor::from_f64(TensorType::new(out.dtype, [1]), &[self.value.0], precision);
        let steps = strides(&out.shape.sizes());
        let offset = steps.iter().zip(&self.padding).map(|(step, (before, _))| step * before).sum();
        let inside = View { offset, sizes: args[0].sizes(), steps };
        let n = out.shape.sizes().iter().product();
        let data = match (&args[0].data, &fill.data) {
            (Data::F32(x), Data::F32(f)) => Data::F32(padded(x, f[0], n, &inside)),
            (Data::F64(x), Data::F64(f)) => Data::F64(padded(x, f[0], n, &inside)),
            (Data::I32(x), Data::I32(f)) => Data::I32(padded(x, f[0], n, &inside)),
            (Data::U32(x), Data::U32(f)) => Data::U32(padded(x, f[0], n, &inside)),
            (Data::Bool(x), Data::Bool(f)) => Data::Bool(padded(x, f[0], n, &inside)),
            _ => unreachable!("operand and result have one dtype"),
        };
        Tensor::new(out.clone(), data)
    }
}

impl Operator for Concat {
    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, TypeError> {
        let first = args[0];
        check::axis(1, first, self.axis)?;
        check::plain(1, first)?;
        let mut extent = Dim::new(0);
        for (i, arg) in args.iter().enumerate() {
            let same = arg.dtype == first.dtype
                && arg.rank() == first.rank()
                && (0..first.rank()).all(|a| a == self.axis || arg.shape.0[a] == first.shape.0[a]);
            if !same {
                return Err(TypeError::new(
                    1,
                    format!("operand {i} differs from operand 0 outside axis {}", self.axis),
                )
                .expected_found(first, arg));
            }
            extent = &extent + &arg.shape.0[self.axis];
        }
        let mut shape = first.shape.clone();
        shape.0[self.axis] = extent;
        Ok(TensorType { dtype: first.dtype, shape })
    }
    fn eval(&self, args: &[&Tensor], out: &TensorType, _: Precision) -> Tensor {
        let pieces: Vec<&Data> = args.iter().map(|a| &a.data).collect();
        let lengths: Vec<usize> = args.iter().map(|a| a.sizes()[self.axis..].iter().product()).collect();
        let before = args[0].sizes()[..self.axis].iter().product();
        macro_rules! joined {
            ($kind:ident) => {
                Data::$kind(joined(
                    before,
                    &lengths,
                    pieces.iter().map(|p| match p {
                        Data::$kind(v) => v.as_slice(),
                        _ => unreachable!("operands have one dtype"),
                    }),
                ))
            };
        }
        let data = match pieces[0] {
            Data::F32(_) => joined!(F32),
            Data::F64(_) => joined!(F64),
            Data::I32(_) => joined!(I32),
            Data::U32(_) => joined!(U32),
            Data::Bool(_) => joined!(Bool),
        };
        Tensor::new(out.clone(), data)
    }
}

/// `n` elements of `fill`, those of `inside` replaced by `x`.
fn padded<T: Copy>(x: &[T], fill: T, n: usize, inside: &View) -> Vec<T> {
    let mut to = vec![fill; n];
    let (count, step) = inside.row();
    let mut rows = x.chunks_exact(count.max(1));
    inside.rows(|offset| {
        let row = rows.next().expect("the view has the operand's sizes");
        row.iter().enumerate().for_each(|(i, v)| to[offset + i * step] = *v);
    });
    to
}

/// Pieces of `lengths` elements each, in turn, `before` times.
fn joined<'a, T: Copy + 'a>(before: usize, lengths: &[usize], pieces: impl Iterator<Item = &'a [T]> + Clone) -> Vec<T> {
    let mut to = Vec::with_capacity(before * lengths.iter().sum::<usize>());
    for i in 0..before {
        for (piece, n) in pieces.clone().zip(lengths) {
            to.extend_from_slice(&piece[i * n..(i + 1) * n]);
        }
    }
    to
}
