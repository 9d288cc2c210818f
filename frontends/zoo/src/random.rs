//! Random numbers of the host: standard normals by counter, so that any element can be had on its own.
//!
//! Element `index` of the tensor that image `image` needs at `step` is a function of those three numbers and
//! the seed, whatever the batch or the device. Philox4x32-10 (Salmon et al. 2011) is run with
//!
//! - key = (low word, high word) of the seed,
//! - counter = (index / 4, step, low word of image, high word of image);
//!
//! its four words r0..r3 become uniforms u = (r + ½)·2⁻³², and two Box–Muller pairs
//! (√(−2 ln u0)·cos 2πu1, √(−2 ln u0)·sin 2πu1), likewise of u2 and u3, computed in f64 and rounded to f32. Element
//! `index` is number `index % 4` of these. By convention step 0 is the first latents and step k + 1 the noise of step k.

/// Philox4x32 with ten rounds.
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    let (mut c, mut k) = (counter, key);
    for _ in 0..10 {
        let (p0, p1) = (MULTIPLIERS[0] * c[0] as u64, MULTIPLIERS[1] * c[2] as u64);
        c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
        k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
    }
    c
}

/// The first `count` standard normals of (seed, image, step).
pub fn normals(seed: u64, image: u64, step: u32, count: usize) -> Vec<f32> {
    let key = [seed as u32, (seed >> 32) as u32];
    let mut values = Vec::with_capacity(count.next_multiple_of(4));
    for block in 0..count.div_ceil(4) {
        let words = philox4x32([block as u32, step, image as u32, (image >> 32) as u32], key);
        let uniform = words.map(|w| (w as f64 + 0.5) / 4294967296.0);
        for pair in uniform.chunks_exact(2) {
            let radius = (-2.0 * pair[0].ln()).sqrt();
            let (sin, cos) = (std::f64::consts::TAU * pair[1]).sin_cos();
            values.extend([(radius * cos) as f32, (radius * sin) as f32]);
        }
    }
    values.truncate(count);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the Random123 distribution.
    #[test]
    fn philox_gives_the_published_words() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox4x32([!0; 4], [!0; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        assert_eq!(
            philox4x32([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
        );
    }

    #[test]
    fn moments_and_tails_are_those_of_a_normal() {
        let n = 400_000;
        let values = normals(7, 3, 1, n);
        let moment = |k: i32| values.iter().map(|&x| (x as f64).powi(k)).sum::<f64>() / n as f64;
        // Five standard errors of the sample moments: √(Var(x^k)/n) with Var 1, 2, 15, 96.
        let se = |variance: f64| 5.0 * (variance / n as f64).sqrt();
        assert!(moment(1).abs() < se(1.0));
        assert!((moment(2) - 1.0).abs() < se(2.0));
        assert!(moment(3).abs() < se(15.0));
        assert!((moment(4) - 3.0).abs() < se(96.0));
        let within = values.iter().filter(|x| x.abs() < 1.0).count() as f64 / n as f64;
        assert!((within - 0.682_689_5).abs() < se(0.25));
        // Neighbours (the two halves of a pair, and of different pairs) are uncorrelated.
        for lag in [1, 2, 3, 4] {
            let mean = values.windows(lag + 1).map(|w| w[0] as f64 * w[lag] as f64).sum::<f64>() / n as f64;
            assert!(mean.abs() < se(1.0), "lag {lag}: {mean}");
        }
    }

    #[test]
    fn streams_differ_and_prefixes_agree() {
        assert_eq!(normals(1, 2, 3, 7), normals(1, 2, 3, 100)[..7]);
        let base = normals(1, 2, 3, 8);
        for other in [normals(2, 2, 3, 8), normals(1, 3, 3, 8), normals(1, 2, 4, 8), normals(1 << 40, 2, 3, 8)] {
            assert_ne!(base, other);
        }
    }
}
