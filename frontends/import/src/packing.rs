//! Latents as FLUX's pipeline saves them: tokens of p×p pixels, channels before the place in the patch.

use selvedge_ir::Tensor;

/// [B, C, H, W] to [B, H/p·W/p, C·p·p].
pub fn pack(latents: &Tensor, patch: usize) -> Tensor {
    let [b, c, h, w] = <[usize; 4]>::try_from(latents.sizes()).unwrap_or([0; 4]);
    let tokens = (h / patch) * (w / patch);
    let mut values = vec![0.0; b * c * h * w];
    let from = latents.to_f32();
    places([b, c, h, w], patch).for_each(|(pixel, token)| values[token] = from[pixel]);
    Tensor::f32(&[b, tokens, c * patch * patch], values)
}

/// The inverse of [`pack`] for latents of a height and width; `None` if the tokens are not of this size.
pub fn unpack(packed: &Tensor, patch: usize, [h, w]: [usize; 2]) -> Option<Tensor> {
    let [b, tokens, features] = <[usize; 3]>::try_from(packed.sizes()).ok()?;
    let c = features / (patch * patch).max(1);
    if patch < 2 || tokens != (h / patch) * (w / patch) || features != c * patch * patch {
        return None;
    }
    let mut values = vec![0.0; b * c * h * w];
    let from = packed.to_f32();
    places([b, c, h, w], patch).for_each(|(pixel, token)| values[pixel] = from[token]);
    Some(Tensor::f32(&[b, c, h, w], values))
}

/// Index of each element in the latents, and in the tokens.
fn places([b, c, h, w]: [usize; 4], patch: usize) -> impl Iterator<Item = (usize, usize)> {
    let (rows, columns) = (h / patch, w / patch);
    (0..b * c * rows * patch * columns * patch).map(move |i| {
        let (x, rest) = (i % w, i / w);
        let (y, rest) = (rest % h, rest / h);
        let (channel, image) = (rest % c, rest / c);
        let token = (image * rows + y / patch) * columns + x / patch;
        (i, (token * c + channel) * patch * patch + (y % patch) * patch + x % patch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_is_the_reference_permutation() {
        // view(1, 1, 1, 2, 2, 2).permute(0, 2, 4, 1, 3, 5): two tokens, each a 2×2 patch.
        let latents = Tensor::f32(&[1, 1, 2, 4], (0..8).map(|x| x as f32).collect());
        let packed = pack(&latents, 2);
        assert_eq!(packed, Tensor::f32(&[1, 2, 4], vec![0.0, 1.0, 4.0, 5.0, 2.0, 3.0, 6.0, 7.0]));
        assert_eq!(unpack(&packed, 2, [2, 4]), Some(latents));
        assert_eq!(unpack(&packed, 2, [4, 4]), None);
    }
}
