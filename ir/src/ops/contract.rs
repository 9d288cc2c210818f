//! Sums of products over matched axes.
use super::*;
use crate::dim::Dim;
use crate::interp::Precision;
use crate::op::TypeError;
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
        let _ = (args, out, precision);
        todo!()
    }
}
