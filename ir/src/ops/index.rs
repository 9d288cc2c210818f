//! Operators whose indices are data.
use super::walk::{around, elements};
use super::*;
use crate::dim::Dim;
use crate::interp::Precision;
use crate::op::TypeError;
use crate::tensor::{Data, Tensor};

/// The shape that gather gives, after checking its C1.
fn gathered(x: &TensorType, indices: &TensorType, axis: usize, batch: usize) -> Result<Shape, TypeError> {
    check::axis(1, x, axis)?;
    if batch > axis || batch > indices.rank() {
        return Err(TypeError::new(1, format!("{batch} batch axes for axis {axis} of {x} by {indices}"))
            .expected_found(format!("at most {}", axis.min(indices.rank())), batch));
    }
    if x.shape.0[..batch] != indices.shape.0[..batch] {
        return Err(TypeError::new(1, format!("the {batch} leading axes must be equal"))
            .expected_found(&x.shape, &indices.shape));
    }
    let picked = x.shape.0[..axis].iter().chain(&indices.shape.0[batch..]).chain(&x.shape.0[axis + 1..]);
    Ok(Shape(picked.cloned().collect()))
}

impl Operator for Gather {
    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, TypeError> {
        let (x, indices) = (args[0], args[1]);
        let shape = gathered(x, indices, self.axis, self.batch)?;
        check::integer(2, "indices", indices)?;
        if x.shape.0[self.axis].get() == Some(0) {
            return Err(TypeError::new(2, format!("axis {} of {x} is empty", self.axis)));
        }
        check::plain(3, x)?;
        Ok(TensorType { dtype: x.dtype, shape })
    }
    fn eval(&self, args: &[&Tensor], out: &TensorType, _: Precision) -> Tensor {
        let (x, places) = (args[0], Places::new(args[0], args[1], self.axis, self.batch));
        let data = elements!(&x.data, v => {
            let mut to = Vec::with_capacity(out.shape.sizes().iter().product());
            places.each(|index, _, row| {
                let index = index.clamp(0, places.extent as i64 - 1) as usize;
                to.extend_from_slice(&v[(row * places.extent + index) * places.inner..][..places.inner]);
            });
            to
        });
        Tensor::new(out.clone(), data)
    }
}

impl Operator for Scatter {
    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, TypeError> {
        let (x, indices, updates) = (args[0], args[1], args[2]);
        let shape = gathered(x, indices, self.axis, self.batch)?;
        let wanted = TensorType { dtype: x.dtype, shape };
        if *updates != wanted {
            return Err(
                TypeError::new(2, "updates have another type than gather would give").expected_found(wanted, updates)
            );
        }
        check::integer(3, "indices", indices)?;
        check::number(3, "`x`", x)?;
        Ok(x.clone())
    }
    fn eval(&self, args: &[&Tensor], out: &TensorType, _: Precision) -> Tensor {
        let places = Places::new(args[0], args[1], self.axis, self.batch);
        let kind = self.kind;
        let data = match (&args[0].data, &args[2].data) {
            (Data::F32(x), Data::F32(u)) => {
                let wide: Vec<f32> = places.scattered(kind, x, u, |a, b| a + b);
                Data::F32(wide.into_iter().map(|x| out.dtype.round(x)).collect())
            }
            (Data::F64(x), Data::F64(u)) => Data::F64(places.scattered(kind, x, u, |a, b| a + b)),
            (Data::I32(x), Data::I32(u)) => Data::I32(places.scattered(kind, x, u, i32::wrapping_add)),
            (Data::U32(x), Data::U32(u)) => Data::U32(places.scattered(kind, x, u, u32::wrapping_add)),
            _ => unreachable!("C2 and C3: one dtype, a number"),
        };
        Tensor::new(out.clone(), data)
    }
}

impl Operator for Topk {
    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, TypeError> {
        let x = args[0];
        let extent = check::axis(1, x, self.axis)?;
        if extent.get().is_some_and(|n| self.k > n) {
            return Err(TypeError::new(1, format!("axis {} of {x} has fewer than k elements", self.axis))
                .expected_found(format!("k ≤ {extent}"), self.k));
        }
        check::number(2, "the operand", x)?;
        let mut shape = x.shape.clone();
        shape.0[self.axis] = Dim::new(self.k);
        Ok(TensorType { dtype: DType::I32, shape })
    }
    fn eval(&self, args: &[&Tensor], out: &TensorType, _: Precision) -> Tensor {
        let x = args[0].to_f64(); // exact for every dtype
        let (before, extent, after) = around(&args[0].sizes(), self.axis);
        // Sorted by falling key; −0 equals 0, and a NaN comes last.
        let key = |v: f64| {
            let v = if self.largest { v } else { -v };
            if v.is_nan() { f64::NEG_INFINITY } else { v + 0.0 }
        };
        let mut indices = vec![0i32; before * self.k * after];
        for line in 0..before * after {
            let (outer, inner) = (line / after, line % after);
            let at = |i: usize| key(x[(outer * extent + i) * after + inner]);
            let mut order: Vec<usize> = (0..extent).collect();
            order.sort_by(|&a, &b| at(b).total_cmp(&at(a))); // stable: ties keep the lowest index first
            for (rank, &i) in order[..self.k].iter().enumerate() {
                indices[(outer * self.k + rank) * after + inner] = i as i32;
            }
        }
        Tensor::new(out.clone(), Data::I32(indices))
    }
}

/// Where indices point: `x` is [batch, middle, extent, inner], `indices` [batch, count].
struct Places {
    batch: usize,
    middle: usize,
    extent: usize,
    inner: usize,
    indices: Vec<i64>,
}

impl Places {
    fn new(x: &Tensor, indices: &Tensor, axis: usize, batch: usize) -> Places {
        let sizes = x.sizes();
        Places {
            batch: sizes[..batch].iter().product(),
            middle: sizes[batch..axis].iter().product(),
            extent: sizes[axis],
            inner: sizes[axis + 1..].iter().product(),
            indices: match &indices.data {
                Data::I32(v) => v.iter().map(|&i| i as i64).collect(),
                Data::U32(v) => v.iter().map(|&i| i as i64).collect(),
                Data::F32(_) | Data::F64(_) | Data::Bool(_) => unreachable!("indices are integers"),
            },
        }
    }
    /// Calls `f(index, position in the gathered order, row of x)` in that order; a row is (batch, middle).
    fn each(&self, mut f: impl FnMut(i64, usize, usize)) {
        let count = self.indices.len().checked_div(self.batch).unwrap_or(0);
        for row in 0..self.batch * self.middle {
            for j in 0..count {
                f(self.indices[row / self.middle * count + j], row * count + j, row);
            }
        }
    }
    fn scattered<T: Copy>(&self, kind: ScatterKind, x: &[T], updates: &[T], add: fn(T, T) -> T) -> Vec<T> {
        let mut y = x.to_vec();
        self.each(|index, position, row| {
            if index < 0 || index >= self.extent as i64 {
                return;
            }
            let to = &mut y[(row * self.extent + index as usize) * self.inner..][..self.inner];
            let from = &updates[position * self.inner..][..self.inner];
            match kind {
                ScatterKind::Add => to.iter_mut().zip(from).for_each(|(t, u)| *t = add(*t, *u)),
                ScatterKind::Set => to.copy_from_slice(from),
            }
        });
        y
    }
}
