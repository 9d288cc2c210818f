//! Hooks of kernels that measure a device's ceilings: they do nothing but multiply and add, or copy.

use crate::kernels::map::Map;

/// Vectors of accumulators: enough independent sums to hide the latency of an addition, few enough for 16 registers.
const CHAINS: usize = 3;
/// Multiply-adds of each accumulator in one iteration of the loop.
const UNROLL: usize = 16;

/// Multiply-adds in registers: no memory but one store an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arithmetic {
    /// Invocations, and iterations of each.
    pub invocations: u32,
    /// Loop iterations.
    pub iterations: u32,
}

impl Arithmetic {
    /// The kernel to put the hook into.
    pub fn map(&self) -> Map {
        Map::new(self.invocations)
    }
    /// Its hook `element`; stores to `b0`, which has a vector for each invocation.
    pub fn hook(&self) -> String {
        let mut body = String::new();
        for chain in 0..CHAINS {
            body += &format!("  var a{chain} = vec4<f32>(f32(i + {chain}u)) * 1e-9;\n");
        }
        let step: String = (0..CHAINS).map(|c| format!("    a{c} = a{c} * x + y;\n")).collect();
        let (loops, steps) = (self.iterations, step.repeat(UNROLL));
        body += "  let x = vec4<f32>(0.5 + f32(i & 7u) * 1e-3);\n  let y = vec4<f32>(f32(i & 3u) * 1e-3);\n";
        body += &format!("  for (var k = 0u; k < {loops}u; k++) {{\n{steps}  }}\n");
        let sum: Vec<String> = (0..CHAINS).map(|c| format!("a{c}")).collect();
        format!("fn element(i: u32) {{\n{body}  b0[i] = bitcast<vec4<u32>>({});\n}}\n", sum.join(" + "))
    }
    /// Floating-point operations of a dispatch.
    pub fn flops(&self) -> u64 {
        self.invocations as u64 * self.iterations as u64 * (UNROLL * CHAINS * 4 * 2) as u64
    }
}

/// A copy of vectors from the first half of `b0` to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Vectors of 16 bytes.
    pub vectors: u32,
}

impl Copy {
    /// The kernel to put the hook into.
    pub fn map(&self) -> Map {
        Map::new(self.vectors)
    }
    /// Its hook `element`.
    pub fn hook(&self) -> String {
        format!("fn element(i: u32) {{\n  b0[i + {}u] = b0[i];\n}}\n", self.vectors)
    }
    /// Bytes read and written by a dispatch.
    pub fn bytes(&self) -> u64 {
        self.vectors as u64 * 32
    }
}
