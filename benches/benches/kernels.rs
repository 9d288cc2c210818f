//! Kernel families on the first adapter. Contractions count floating-point operations as elements (Gelem/s = GFLOP/s),
//! the others elements read.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use selvedge_benches::{Device, Words};
use selvedge_ir::DType;
use selvedge_ir::scalar::{Body, Unary};
use selvedge_shaders::kernel::Kernel;
use selvedge_shaders::kernels::contract::{BOrder, Capabilities, Choice, Product, choose};
use selvedge_shaders::kernels::contract_shared::ContractShared;
use selvedge_shaders::kernels::map::Map;
use selvedge_shaders::kernels::reduce::{Combine, ReduceGroup, ReduceLane, Reduction};
use selvedge_shaders::scalar::emit;
use selvedge_shaders::source::{Access, Element};
use std::time::Duration;

fn values(count: u32) -> Words {
    (Access::Read, (0..count.next_multiple_of(4)).map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0).to_bits()).collect())
}

fn output(count: u32) -> Words {
    (Access::ReadWrite, vec![0; count.next_multiple_of(4) as usize])
}

/// Where `load_b` finds B: rows of columns (torch's linear layers), rows of K, or panels of columns.
#[derive(Clone, Copy)]
enum Layout {
    ColumnsOfK,
    RowsOfN,
    Panels(u32),
}

fn contract_hooks(n: u32, k: u32, layout: Layout) -> String {
    let (column, step) = match layout {
        Layout::ColumnsOfK => (format!("n * {k}u"), 1),
        Layout::RowsOfN => ("n".to_string(), n),
        Layout::Panels(width) => (format!("n / {width}u * {}u + n % {width}u", width * k), width),
    };
    format!(
        "fn row_a(batch: u32, m: u32) -> u32 {{ return m * {k}u; }}
         fn load_a(row: u32, batch: u32, m: u32, k: u32) -> vec4<f32> {{ return bitcast<vec4<f32>>(b0[(row + k) >> 2u]); }}
         fn column_b(batch: u32, n: u32) -> u32 {{ return {column}; }}
         fn load_b(column: u32, batch: u32, k: u32, n: u32) -> vec4<f32> {{ return bitcast<vec4<f32>>(b1[(column + k * {step}u) >> 2u]); }}
         fn store(batch: u32, m: u32, n: u32, value: vec4<f32>) {{ b2[(m * {n}u + n) >> 2u] = bitcast<vec4<u32>>(value); }}
         fn partial(batch: u32, m: u32, n: u32) -> vec4<f32> {{ return vec4<f32>(); }}"
    )
}

fn contractions(c: &mut Criterion) {
    let device = Device::open();
    eprintln!("{}", device.name);
    for (m, n, k) in [(1024, 1152, 4608), (256, 384, 1536), (2, 6912, 1152)] {
        let mut group = c.benchmark_group(format!("contract {m}x{n}x{k}"));
        group.throughput(Throughput::Elements(2 * m as u64 * n as u64 * k as u64));
        for layout in [Layout::ColumnsOfK, Layout::RowsOfN, Layout::Panels(64)] {
            let (b_order, name) = match layout {
                Layout::ColumnsOfK => (BOrder::KContiguous, "[N][K]"),
                Layout::RowsOfN => (BOrder::NContiguous, "[K][N]"),
                Layout::Panels(_) => (BOrder::NContiguous, "[N/64][K][64]"),
            };
            let product = Product::new(1, m, n, k, b_order);
            let mut kernels =
                vec![choose(product, false, &Capabilities::PORTABLE), Choice::Shared(ContractShared::new(product))];
            let with = |width| Capabilities { subgroup: Some(width), ..Capabilities::PORTABLE };
            kernels.extend(device.subgroup.map(|width| choose(product, false, &with(width))));
            for choice in kernels {
                let label = format!("{choice} {name}");
                let buffers = [values(m * k), values(n * k), output(m * n)];
                let prepared = device.prepare(choice.kernel(), &contract_hooks(n, k, layout), &buffers);
                group.bench_function(label, |b| b.iter_custom(|count| prepared.time(count)));
            }
        }
    }
}

fn rows(c: &mut Criterion) {
    let device = Device::open();
    let (rows, len) = (1024u32, 1152u32);
    let hooks = format!(
        "fn load(row: u32, k: u32) -> A {{ let i = row * {len}u + k; return bitcast<f32>(b0[i >> 2u][i & 3u]); }}
         fn store(row: u32, value: A) {{ b1[row >> 2u][row & 3u] = bitcast<u32>(value); }}
         fn partial(row: u32) -> A {{ return 0.0; }}"
    );
    let mut group = c.benchmark_group(format!("sum of {rows} rows of {len}"));
    group.throughput(Throughput::Elements((rows * len) as u64));
    let reduction = Reduction::new(rows, len, Combine::Sum, Element::F32);
    let kernels: [(&str, &dyn Kernel); 4] = [
        ("lane, workgroup 64", &ReduceLane::new(reduction)),
        ("lane, workgroup 8", &ReduceLane { reduction, wg: 8 }),
        ("group of 64", &ReduceGroup::new(reduction)),
        ("group of 8", &ReduceGroup { reduction, wg: 8 }),
    ];
    for (name, kernel) in kernels {
        let prepared = device.prepare(kernel, &hooks, &[values(rows * len), output(rows)]);
        group.bench_function(name, |b| b.iter_custom(|count| prepared.time(count)));
    }
}

fn maps(c: &mut Criterion) {
    let device = Device::open();
    let count = 1u32 << 20;
    let mut group = c.benchmark_group("map of 2^20 elements");
    group.throughput(Throughput::Elements(count as u64));
    let functions =
        [None, Some(Unary::Exp), Some(Unary::Tanh), Some(Unary::Erf), Some(Unary::Sigmoid), Some(Unary::Sin)];
    for op in functions {
        let mut lines = vec!["let x = bitcast<f32>(b0[i >> 2u][i & 3u]);".to_string()];
        let body = op.map_or_else(Body::identity, Body::unary);
        let mut names = 0;
        let mut fresh = || {
            names += 1;
            format!("t{names}")
        };
        let value = emit(&body, &["x".to_string()], &[DType::F32], &mut fresh, &mut lines);
        lines.push(format!("b1[i >> 2u][i & 3u] = bitcast<u32>({value});"));
        let hook = format!("fn element(i: u32) {{ {} }}", lines.join(" "));
        let prepared = device.prepare(&Map::new(count), &hook, &[values(count), output(count)]);
        let name = op.map_or("copy", Unary::text);
        group.bench_function(name, |b| b.iter_custom(|count| prepared.time(count)));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    targets = contractions, rows, maps
}
criterion_main!(benches);
