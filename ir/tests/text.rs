//! The text form: reading, writing, and the errors of wrong text.

use selvedge_ir::parse::parse;
use selvedge_ir::print::print;
use selvedge_ir::{Diagnostic, Place};

/// Everything the text form has, as printed.
const CANONICAL: &str = r#"module @demo

weight "blocks.0.attn.qkv.weight" : f16[4,6]
weight "packed \"w\"" : q4<axis=0,group=32,scale=f16,zero>[32,8]
state "kv" : f32[2,6]

fn @step(%x: f32[2,4], %"two words": f32[]) -> f32[2,6], f32[2,6] {
  %w = weight "blocks.0.attn.qkv.weight" : f16[4,6]
  %kv = state "kv" : f32[2,6]
  %0 = contract %x, %w spec=[ab,bc->ac] dtype=f32 : f32[2,6]
  %y = map %0, %kv body={x, y| let t0 = exp(x * 1.702); select(t0 < y - -1.0, t0, bits_f32(7u))} : f32[2,6]
  %c = const [1.0, nan, -inf, -0.0, 0.1] : f32[5]
  %h = const [0.099975586, 65504.0] : f16[2]
  %nans = const 0x0100c07f0000c07f : f32[2]
  %i = const [-2147483648, 7] : i32[2]
  %b = const [true] : bool[]
  %p = pad %c padding=[1:0] value=-inf : f32[6]
  %a, %a_1 = call @two(%y) : f32[2,6], f32[2,6]
  return latent=%a, state "kv"=%a_1
}

fn @two(%x: f32[2,6]) -> f32[2,6], f32[2,6] {
  return a=%x, "b c"=%x
}

fn @symbols(%x: f32[B,4*N,B*N+1,-N+3*B]) -> f32[B,4*N,B*N+1,3*B-N] {
  return y=%x
}

schedule {
  steps @step carry(latent) table("two words": f32[])
  decode @two
  trace("b c")
}
"#;

fn errors(text: &str) -> Vec<Diagnostic> {
    parse(text).expect_err("the text is wrong").0
}

fn codes(text: &str) -> Vec<(u32, u32, String)> {
    let place = |d: &Diagnostic| match d.place {
        Some(Place::Text { line, column }) => (line, column, d.code.clone()),
        Some(Place::Code(_)) | None => panic!("{d} has no place in the text"),
    };
    errors(text).iter().map(place).collect()
}

#[test]
fn canonical_text_is_a_fixed_point() {
    let canonical = CANONICAL.replace("-N+3*B", "3*B-N");
    let module = parse(CANONICAL).unwrap();
    assert_eq!(print(&module), canonical);
    assert_eq!(parse(&canonical).unwrap(), module);
}

#[test]
fn names_are_made_unique_once() {
    use selvedge_ir::ops::Iota;
    use selvedge_ir::{Builder, DType, Module, shape::TensorType};
    let mut b = Builder::new("f");
    let ty = TensorType::new(DType::F32, [2]);
    b.input("x", ty.clone());
    for name in ["x", "a", "a_1", "a", "7", "two words", ""] {
        let id = b.push(Iota { axis: 0, ty: ty.clone() }, &[]).unwrap();
        b.set_name(id, name);
    }
    let mut module = Module::default();
    module.add_function(b.finish()).unwrap();
    let text = print(&module);
    let names: Vec<&str> = text.lines().filter_map(|l| Some(l.trim().split_once(" = ")?.0)).collect();
    assert_eq!(names, ["%x_1", "%a", "%a_1", "%a_2", "%0", "%\"two words\"", "%1"]);
    let again = parse(&text).unwrap();
    assert_eq!(again, module);
    assert_eq!(print(&again), text);
}

#[test]
fn a_lone_function_is_a_module() {
    let module = parse("fn @f(%x: f32[2]) {\n  return y=%x\n}").unwrap();
    assert_eq!((module.name.as_str(), module.functions.len()), ("", 1));
}

#[test]
fn attributes_may_come_in_any_order_and_comments_anywhere() {
    let a = "// c\nfn @f(%x: f32[2,3]) { // c\n  %y = reduce %x axes=[0] kind=sum : f32[3] // c\n  return y=%y\n}\n";
    let b = "fn @f(%x: f32[2,3]) {\n  %y = reduce %x kind=sum axes=[0] : f32[3]\n  return y=%y\n}\n";
    assert_eq!(parse(a).unwrap(), parse(b).unwrap());
}

#[test]
fn places_are_lines_and_columns() {
    let module = parse("fn @f(%x: f32[2]) {\n\n  %y = map %x body={x| x} : f32[2]\n  return y=%y\n}").unwrap();
    let places: Vec<_> = module.functions[0].values.iter().map(|v| v.places.clone()).collect();
    let text = |line, column| vec![Place::Text { line, column }];
    assert_eq!(places, [text(1, 7), text(3, 3)]);
}

#[test]
fn bodies_bind_as_the_table_says() {
    let spell = |body: &str| {
        let text = format!(
            "fn @f(%x: f32[], %y: f32[]) {{\n  %r = map %x, %y body={{x, y| {body}}} : f32[]\n  return r=%r\n}}"
        );
        let module = parse(&text).unwrap();
        let printed = print(&module);
        let body = printed.split_once("body={x, y| ").unwrap().1;
        body.split_once("} :").unwrap().0.to_string()
    };
    assert_eq!(spell("x - y - 1.0"), "x - y - 1.0");
    assert_eq!(spell("x - (y - 1.0)"), "x - (y - 1.0)");
    assert_eq!(spell("(x + y) * x"), "(x + y) * x");
    assert_eq!(spell("x + (y * x)"), "x + y * x");
    assert_eq!(spell("select(x < y & y < 1.0, -x, -1.5)"), "select(x < y & y < 1.0, neg(x), -1.5)");
    assert_eq!(spell("pow(max(x, y), 2.0) / f32(u32(x) >> 3u)"), "pow(max(x, y), 2.0) / f32(u32(x) >> 3u)");
    assert_eq!(spell("let a = x; a * 1e-7"), "x * 1e-7");
}

#[test]
fn several_errors_are_reported_with_their_places() {
    let text = "fn @f(%x: f32[2,3]) {
  %a = redcue %x kind=sum axes=[0] : f32[3]
  %b = reduce %a kind=sum axes=[0] : f32[]
  %c = reduce %x kind=sum axes=[0] : f32[2]
  %d = reduce %x kind=sum axes=[5] : f32[2]
  %e = map %nothing body={x| x} : f32[]
  %g = map %x body={x| expp(x)} : f32[2,3]
  %h = map %x body={x| x : f32[2,3]
  %i = const [1.5] : i32[1]
  %j = reduce %x kind=sum axis=[0] : f32[3]
  %j = reduce %x kind=sum : f32[3]
  %c = const [1.0] : f23[1]
  return y=%c
}
weight \"w : f32[2]
";
    let want = [
        (2, 8, "P3"),
        (4, 38, "P5"),
        (5, 8, "reduce C1"),
        (6, 12, "P4"),
        (7, 24, "P3"),
        (8, 26, "P2"),
        (9, 15, "P7"),
        (10, 27, "P3"),
        (11, 18, "P6"),
        (12, 22, "P3"),
        (15, 8, "P1"),
        (15, 19, "P2"),
    ];
    let got = codes(text);
    let want: Vec<_> = want.into_iter().map(|(l, c, code)| (l, c, code.to_string())).collect();
    assert_eq!(got, want, "{:#?}", errors(text));
    let all: Vec<String> = errors(text).iter().map(Diagnostic::to_string).collect();
    assert!(all[0].contains("did you mean `reduce`?"), "{}", all[0]);
    assert!(all[1].contains("declared f32[2], inferred f32[3]"), "{}", all[1]);
}

#[test]
fn deep_and_absurd_text_is_an_error() {
    let body = |b: &str| format!("fn @f(%x: f32[]) {{\n  %y = map %x body={{x| {b}}} : f32[]\n  return y=%y\n}}");
    for deep in ["(".repeat(100_000), "-".repeat(100_000), "exp(".repeat(100_000)] {
        assert!(parse(&body(&deep)).is_err());
    }
    for shape in ["99999999999999999999", "1099511627775*1099511627775", "1099511627775,1099511627775", "B*"] {
        assert!(parse(&format!("weight \"w\" : f32[{shape}]")).is_err(), "{shape}");
    }
}

/// Bytes of good text are changed, removed, doubled: the parser returns, and what it accepts prints and reads back.
#[test]
fn no_text_makes_the_parser_panic() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |n: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % n as u64) as usize
    };
    let alphabet = b"%@\"\\[]{}()<>=:;,|+-*/.0123456789eEiufnx _\n\tB\xff\xc3";
    let mut accepted = 0;
    for _ in 0..1500 {
        let mut bytes = CANONICAL.as_bytes().to_vec();
        for _ in 0..1 + random(4) {
            let at = random(bytes.len());
            match random(5) {
                0 => bytes[at] = alphabet[random(alphabet.len())],
                1 => bytes.insert(at, alphabet[random(alphabet.len())]),
                2 => drop(bytes.remove(at)),
                3 => {
                    let end = (at + random(40)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    let to = random(bytes.len());
                    bytes.splice(to..to, piece);
                }
                _ => bytes.truncate(at.max(1)),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(module) = parse(&text) {
            accepted += 1;
            let printed = print(&module);
            assert_eq!(parse(&printed).as_ref(), Ok(&module), "{printed}");
        }
    }
    assert!(accepted > 10, "only {accepted} texts were accepted");
}
