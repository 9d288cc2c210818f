//! Checks that several operators' `infer` share.
use crate::dim::Dim;
use crate::dtype::DType;
use crate::op::TypeError;
use crate::shape::TensorType;

/// The dtype is not packed.
pub(super) fn plain(constraint: u32, ty: &TensorType) -> Result<(), TypeError> {
    match ty.dtype {
        DType::Packed(_) => Err(TypeError::new(constraint, "a packed weight must be cast by a map first")
            .expected_found("a plain dtype", ty.dtype)),
        DType::F32 | DType::F16 | DType::BF16 | DType::I32 | DType::U32 | DType::Bool => Ok(()),
    }
}

/// The dtype is f32, f16 or bf16.
pub(super) fn float(constraint: u32, what: &str, ty: &TensorType) -> Result<(), TypeError> {
    if ty.dtype.is_float() {
        Ok(())
    } else {
        Err(TypeError::new(constraint, format!("{what} must be a float")).expected_found("f32, f16 or bf16", ty.dtype))
    }
}

/// The dtype is a float or an integer.
pub(super) fn number(constraint: u32, what: &str, ty: &TensorType) -> Result<(), TypeError> {
    if ty.dtype.is_float() || ty.dtype.is_int() {
        Ok(())
    } else {
        Err(TypeError::new(constraint, format!("{what} must be a number"))
            .expected_found("f32, f16, bf16, i32 or u32", ty.dtype))
    }
}

/// The dtype is i32 or u32.
pub(super) fn integer(constraint: u32, what: &str, ty: &TensorType) -> Result<(), TypeError> {
    if ty.dtype.is_int() {
        Ok(())
    } else {
        Err(TypeError::new(constraint, format!("{what} must be integers")).expected_found("i32 or u32", ty.dtype))
    }
}

/// The axis exists; returns its extent.
pub(super) fn axis(constraint: u32, ty: &TensorType, axis: usize) -> Result<&Dim, TypeError> {
    ty.shape.0.get(axis).ok_or_else(|| {
        TypeError::new(constraint, format!("{ty} has no axis {axis}"))
            .expected_found(format!("an axis below {}", ty.rank()), axis)
    })
}

/// The rank is `rank`.
pub(super) fn rank(constraint: u32, what: &str, ty: &TensorType, rank: usize) -> Result<(), TypeError> {
    if ty.rank() == rank {
        Ok(())
    } else {
        Err(TypeError::new(constraint, format!("{what} must have rank {rank}")).expected_found(rank, ty))
    }
}

/// A list attribute has `count` entries.
pub(super) fn entries(constraint: u32, what: &str, found: usize, count: usize) -> Result<(), TypeError> {
    if found == count {
        Ok(())
    } else {
        Err(TypeError::new(constraint, format!("`{what}` must have one entry for each axis"))
            .expected_found(count, found))
    }
}
