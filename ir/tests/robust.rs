//! Absurd attributes are refused, without a panic and without much memory.

use selvedge_ir::parse::parse;
use selvedge_ir::{Interpreter, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;

#[test]
fn absurd_attributes_are_errors() {
    let wrong = [
        "window %x kind=sum size=[1099511627775] stride=[1] padding=[0:0] dilation=[1099511627775] groups=1 : f32[1,2,4]",
        "window %x kind=sum size=[1] stride=[1099511627775] padding=[0:0] dilation=[0] groups=1 : f32[1,2,1]",
        "resize %x kind=linear size=[1099511627775] : f32[1,2,4]",
        "group_norm %x groups=1099511627775 eps=0.1 : f32[1,2,4]",
        "pool_tokens %x height=1099511627775 width=1099511627775 block=1 : f32[1,2,4]",
        "reshape %x shape=[1099511627775,1099511627775,1099511627775] : f32[1,2,4]",
        "transpose %x perm=[1099511627775,0,1] : f32[1,2,4]",
        "slice %x start=[0,0,0] end=[1,2,1099511627775] step=[1,1,1] : f32[1,2,4]",
        "topk %x k=1099511627775 axis=2 largest=true : i32[1,2,4]",
        "gather %x, %x axis=2 batch=1099511627775 : f32[1,2,4]",
        "reduce %x kind=sum axes=[1099511627775] : f32[1,2,4]",
        "concat %x, %x axis=1099511627775 : f32[1,2,4]",
    ];
    for statement in wrong {
        let text = format!("fn @f(%x: f32[1,2,4]) {{\n  %y = {statement}\n  return y=%y\n}}");
        let errors = parse(&text).expect_err(statement);
        assert!(errors.0.iter().all(|d| d.place.is_some()), "{errors}");
    }
}

#[test]
fn values_too_large_for_a_host_are_errors() {
    let large = [
        "iota axis=0 : f32[1099511627775]",
        "iota axis=0 : f32[1099511627775,1099511627775,1099511627775]",
        "pad %x padding=[0:1099511627775,0:0,0:0] value=0.0 : f32[1099511627776,2,4]",
    ];
    let none: BTreeMap<String, Arc<Tensor>> = BTreeMap::new();
    let mut run = 0;
    for statement in large {
        let text = format!("fn @f(%x: f32[1,2,4]) {{\n  %y = {statement}\n  return y=%y\n}}");
        let Ok(module) = parse(&text) else { continue };
        let x = Tensor::f32(&[1, 2, 4], vec![0.0; 8]);
        let error = Interpreter::new(&module, &none).call("f", &[x], &mut BTreeMap::new()).unwrap_err();
        assert_eq!(error.code, "I4", "{error}");
        run += 1;
    }
    assert!(run > 0, "the parser refuses all of them");
}
