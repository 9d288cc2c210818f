//! Sums of products over matched axes.
use super::float::{Real, in_precision};
use super::walk::View;
use super::*;
use crate::dim::Dim;
use crate::interp::Precision;
use crate::op::TypeError;
use crate::spec::Role;
use crate::tensor::Tensor;

impl Operator for Contract {
    fn infer(&self, args: &[&TensorType]) -> Result<TensorType, TypeError> {
        let spec = &self.spec;
        for term in [&spec.a, &spec.b, &spec.out] {
            if (1..term.len()).any(|i| term[..i].contains(&term[i])) {
                return Err(TypeError::new(1, format!("a letter occurs twice in one term of {spec}")));
            }
        }
        for &letter in spec.a.iter().chain(&spec.b).chain(&spec.out) {
            if spec.role(letter).is_none() {
                return Err(TypeError::new(2, format!("a letter of {spec} is in one term only")));
            }
        }
        for (what, ty) in [("`a`", args[0]), ("`b`", args[1])] {
            check::float(4, what, ty)?;
        }
        if !self.dtype.is_float() {
            return Err(TypeError::new(4, "the result must be a float").expected_found("f32, f16 or bf16", self.dtype));
        }
        let mut extents: Vec<(u8, &Dim)> = Vec::new();
        for (what, ty, letters) in [("a", args[0], &spec.a), ("b", args[1], &spec.b)] {
            if ty.rank() != letters.len() {
                return Err(TypeError::new(3, format!("`{what}` and its letters in {spec} differ in rank"))
                    .expected_found(format!("rank {}", letters.len()), ty));
            }
            for (&letter, dim) in letters.iter().zip(&ty.shape.0) {
                match extents.iter().find(|(l, _)| *l == letter) {
                    Some((_, known)) if *known != dim => {
                        let axis = letters.iter().position(|l| *l == letter).unwrap_or(0);
                        return Err(TypeError::new(
                            3,
                            format!(
                                "matched axes of {spec} differ in extent: {} and {} (axis {axis} of `{what}`)",
                                args[0], args[1]
                            ),
                        )
                        .expected_found(known, dim));
                    }
                    Some(_) => {}
                    None => extents.push((letter, dim)),
                }
            }
        }
        let extent = |letter: &u8| extents.iter().find(|(l, _)| l == letter).map(|(_, d)| (*d).clone());
        let shape = spec.out.iter().map(|l| extent(l).expect("C2: result letters occur in an operand")).collect();
        Ok(TensorType { dtype: self.dtype, shape: Shape(shape) })
    }
    fn eval(&self, args: &[&Tensor], out: &TensorType, precision: Precision) -> Tensor {
        in_precision!(precision, contract(self, args[0], args[1], out))
    }
}

/// Brings the operands to [batch, rows, summed] and [batch, summed, columns] and multiplies plainly: each element
/// of the result is summed in order of the summed index.
fn contract<R: Real>(op: &Contract, a: &Tensor, b: &Tensor, out: &TensorType) -> Tensor {
    let spec = &op.spec;
    let [batch, rows, columns, summed] =
        [Role::Batch, Role::Rows, Role::Columns, Role::Summed].map(|role| spec.letters(role));
    let ordered = |tensor: &Tensor, letters: &[u8], order: [&Vec<u8>; 3]| {
        let find = |l: &u8| letters.iter().position(|x| x == l).expect("the role says where a letter occurs");
        let perm: Vec<usize> = order.iter().flat_map(|part| part.iter().map(find)).collect();
        View::permuted(&tensor.sizes(), &perm).read(R::slice(&tensor.data))
    };
    let left = ordered(a, &spec.a, [&batch, &rows, &summed]);
    let right = ordered(b, &spec.b, [&batch, &summed, &columns]);
    let (a_sizes, b_sizes) = (a.sizes(), b.sizes());
    let extent = |l: &u8| match spec.a.iter().position(|x| x == l) {
        Some(i) => a_sizes[i],
        None => b_sizes[spec.b.iter().position(|x| x == l).expect("C2: a letter occurs in an operand")],
    };
    let count = |letters: &[u8]| letters.iter().map(extent).product::<usize>();
    let (n_batch, n_rows, n_columns, n_summed) = (count(&batch), count(&rows), count(&columns), count(&summed));
    let mut result = vec![R::from_f64(0.0); n_batch * n_rows * n_columns];
    for i in 0..n_batch * n_rows {
        let sums = &mut result[i * n_columns..][..n_columns];
        for k in 0..n_summed {
            let x = left[i * n_summed + k];
            let row = &right[(i / n_rows * n_summed + k) * n_columns..][..n_columns];
            sums.iter_mut().zip(row).for_each(|(s, y)| *s = s.add(x.mul(*y)));
        }
        sums.iter_mut().for_each(|s| *s = s.rounded(out.dtype));
    }
    let order: Vec<u8> = batch.iter().chain(&rows).chain(&columns).copied().collect();
    let sizes: Vec<usize> = order.iter().map(extent).collect();
    let place = |l: &u8| order.iter().position(|x| x == l).expect("C2: the result has the letters that are not summed");
    let perm: Vec<usize> = spec.out.iter().map(place).collect();
    Tensor::new(out.clone(), R::data(View::permuted(&sizes, &perm).read(&result)))
}
