//! Contractions.

use crate::common::gpu::{gpu, input, output, run};
use crate::floats;
use selvedge_shaders::kernel::Kernel;
use selvedge_shaders::kernels::contract::{BOrder, Contract, Product};
use selvedge_shaders::kernels::contract_shared::ContractShared;
use selvedge_shaders::kernels::contract_subgroup::ContractSubgroup;

/// Hooks of a product: A [batch, M, K] in b0, B in b1 as its order says, C [batch, M, N] in b2. Rows of A and B are
/// padded to fours, with zeros.
fn product_hooks(p: &Product) -> String {
    let Product { m, n, k, .. } = *p;
    let b = match p.b_order {
        BOrder::KContiguous => format!("let i = (batch * {n}u + n) * {} + k;", k.next_multiple_of(4)),
        BOrder::NContiguous => {
            format!(
                "if k >= {k}u {{ return vec4<f32>(); }} let i = (batch * {k}u + k) * {} + n;",
                n.next_multiple_of(4)
            )
        }
    };
    format!(
        "fn row_a(batch: u32, m: u32) -> u32 {{ return 0u; }}
         fn column_b(batch: u32, n: u32) -> u32 {{ return 0u; }}
         fn load_a(row: u32, batch: u32, m: u32, k: u32) -> vec4<f32> {{
             let i = (batch * {m}u + m) * {} + k;
             return bitcast<vec4<f32>>(b0[i >> 2u]);
         }}
         fn load_b(column: u32, batch: u32, k: u32, n: u32) -> vec4<f32> {{ {b} return bitcast<vec4<f32>>(b1[i >> 2u]); }}
         fn store(batch: u32, m: u32, n: u32, value: vec4<f32>) {{
             for (var j = 0u; j < min(4u, {n}u - n); j++) {{
                 let i = (batch * {m}u + m) * {n}u + n + j;
                 b2[i >> 2u][i & 3u] = bitcast<u32>(value[j]);
             }}
         }}
         fn partial(batch: u32, m: u32, n: u32) -> vec4<f32> {{
             var four = vec4<f32>();
             for (var j = 0u; j < min(4u, {n}u - n); j++) {{
                 let i = (batch * {m}u + m) * {n}u + n + j;
                 four[j] = bitcast<f32>(b2[i >> 2u][i & 3u]);
             }}
             return four;
         }}",
        k.next_multiple_of(4)
    )
}

/// Rows of `len` elements with zeros up to a multiple of four.
fn padded(data: &[f32], len: u32) -> Vec<f32> {
    let mut out = Vec::new();
    for row in data.chunks(len as usize) {
        out.extend(row);
        out.resize(out.len().next_multiple_of(4), 0.0);
    }
    out
}

fn check_product(product: Product, kernel_of: &dyn Fn(Product) -> Box<dyn Kernel>, chunks: &[u32]) {
    let Product { batch, m, n, k, .. } = product;
    let a = floats((batch * m * k) as usize, m);
    let b = floats((batch * n * k) as usize, n + 1000);
    // Elements that are not stored keep this value.
    let mut c = vec![0x7fc0_0000u32; (batch * m * n) as usize];
    let (device_a, device_b) = match product.b_order {
        BOrder::KContiguous => (padded(&a, k), padded(&b, k)),
        BOrder::NContiguous => (padded(&a, k), padded(&b, n)),
    };
    for part in chunks.windows(2) {
        let kernel = kernel_of(Product { from: part[0], to: part[1], ..product });
        c = run(&*kernel, &product_hooks(&product), &[input(&device_a), input(&device_b), output(&c)]);
    }
    let (mut error, mut norm) = (0.0f64, 0.0f64);
    for (i, &word) in c.iter().enumerate() {
        let (batch, row, column) = (i as u32 / (m * n), i as u32 / n % m, i as u32 % n);
        let want: f64 = (0..k)
            .map(|kk| {
                let x = a[((batch * m + row) * k + kk) as usize] as f64;
                let at = match product.b_order {
                    BOrder::KContiguous => (batch * n + column) * k + kk,
                    BOrder::NContiguous => (batch * k + kk) * n + column,
                };
                x * b[at as usize] as f64
            })
            .sum();
        let got = f32::from_bits(word) as f64;
        error = error.max((got - want).abs());
        norm = norm.max(want.abs());
        assert!(!got.is_nan(), "{product:?}: element {i} was not stored");
    }
    assert!(error <= 1e-6 * norm.max(1.0), "{product:?}: error {error:e} of {norm}");
}

#[test]
fn contractions_match_f64() {
    let width = gpu().subgroup;
    for b_order in [BOrder::KContiguous, BOrder::NContiguous] {
        for (batch, m, n, k) in [(1, 1, 1, 1), (1, 5, 6, 7), (2, 64, 64, 32), (3, 67, 33, 50), (1, 9, 130, 200)] {
            let product = Product::new(batch, m, n, k, b_order);
            check_product(product, &|p| Box::new(Contract::new(p)), &[0, k]);
            check_product(
                product,
                &|p| Box::new(Contract { rm: 3, rn: 4, wg_m: 2, wg_n: 4, ..Contract::new(p) }),
                &[0, k],
            );
            check_product(product, &|p| Box::new(ContractShared::new(p)), &[0, k]);
            let odd = |p| -> Box<dyn Kernel> {
                Box::new(ContractShared { rm: 3, rn: 4, bk: 12, wg_m: 2, wg_n: 4, ..ContractShared::new(p) })
            };
            check_product(product, &odd, &[0, k]);
            let sliced = [(2, 4, 32, 1, 8, 8), (5, 8, 24, 1, 4, 3), (1, 4, 64, 2, 2, 16)];
            for (rm, rn, bk, wg_m, wg_n, slices) in sliced.into_iter().filter(|_| [5, 9].contains(&m)) {
                let sliced = move |product| -> Box<dyn Kernel> {
                    Box::new(ContractShared { product, rm, rn, bk, wg_m, wg_n, slices })
                };
                check_product(product, &sliced, &[0, k]);
            }
            if let Some(width) = width {
                check_product(product, &|p| Box::new(ContractSubgroup::new(p, width)), &[0, k]);
                let odd = move |p| -> Box<dyn Kernel> {
                    Box::new(ContractSubgroup { rm: 11, rn: 4, ..ContractSubgroup::new(p, width) })
                };
                check_product(product, &odd, &[0, k]);
            }
        }
        let product = Product::new(2, 19, 21, 45, b_order);
        check_product(product, &|p| Box::new(Contract::new(p)), &[0, 16, 40, 45]);
        check_product(product, &|p| Box::new(ContractShared::new(p)), &[0, 16, 40, 45]);
        let sliced = |p| -> Box<dyn Kernel> {
            Box::new(ContractShared { rm: 4, rn: 4, wg_m: 2, wg_n: 4, slices: 4, ..ContractShared::new(p) })
        };
        check_product(product, &sliced, &[0, 16, 40, 45]);
        if let Some(width) = width {
            check_product(product, &|p| Box::new(ContractSubgroup::new(p, width)), &[0, 16, 40, 45]);
            let double = move |p| -> Box<dyn Kernel> {
                Box::new(ContractSubgroup { rm: 12, fours: 2, ..ContractSubgroup::new(p, width) })
            };
            check_product(Product::new(2, 19, 70, 48, b_order), &double, &[0, 16, 40, 48]);
        }
    }
}
