//! The one place where the text of a whole shader is put together.

use crate::library;
use std::fmt::Write;

/// How a kernel may use a storage buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    ReadWrite,
}

/// The type of a binding's 16-byte elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Unit {
    /// `vec4<u32>`.
    #[default]
    Words,
    /// `vec2<u64>`, a **wide** binding: on software drivers a load costs by its components, whatever their width. Needs 64-bit
    /// integers; nothing smaller than 8 bytes can be stored.
    Pairs,
}

/// A value of the constants block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Const {
    /// `const NAME: u32 = 12u;`
    U32(u32),
    /// `const NAME: i32 = i32(-12);`
    I32(i32),
    /// `const NAME: f32 = 0.5f;`, finite.
    F32(f32),
    /// `const NAME: bool = true;`
    Bool(bool),
}

/// Number type of a kernel's values: the WGSL alias `A`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// f32, f16 and bf16 tensors.
    F32,
    /// i32 tensors.
    I32,
    /// u32 and bool tensors.
    U32,
}

impl Element {
    /// All of them.
    pub const ALL: [Element; 3] = [Element::F32, Element::I32, Element::U32];
    /// The WGSL type.
    pub fn wgsl(self) -> &'static str {
        match self {
            Element::F32 => "f32",
            Element::I32 => "i32",
            Element::U32 => "u32",
        }
    }
    /// The kernel type that carries a dtype's values.
    pub fn of(dtype: selvedge_ir::DType) -> Element {
        use selvedge_ir::dtype::Class;
        match dtype.class() {
            Class::Float => Element::F32,
            Class::Signed => Element::I32,
            Class::Unsigned | Class::Bool => Element::U32,
        }
    }
}

/// A shader in parts: [`Source::text`] joins them into complete WGSL.
///
/// Storage buffers are `b0`, `b1`, … in the order of [`Source::binding`], of type `array<vec4<u32>>` unless they are wide, in
/// group 0.
/// Functions of the shared library (`wgsl/lib`) are added when a part names them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    enables: Vec<&'static str>,
    bindings: Vec<(Access, Unit)>,
    alias: Option<Element>,
    constants: Vec<(&'static str, Const)>,
    functions: Vec<String>,
    skeleton: &'static str,
}

impl Source {
    /// A shader around a skeleton; everything else is added by the methods below.
    pub fn new(skeleton: &'static str) -> Source {
        Source { skeleton, ..Source::default() }
    }
    /// Adds `enable NAME;` (naga's dialect: none for subgroups).
    pub fn enable(mut self, name: &'static str) -> Source {
        self.enables.push(name);
        self
    }
    /// Adds the next storage buffer, `b0` first.
    pub fn binding(self, access: Access) -> Source {
        self.binding_of(access, Unit::Words)
    }
    /// Adds the next storage buffer with elements of this type.
    pub fn binding_of(mut self, access: Access, unit: Unit) -> Source {
        self.bindings.push((access, unit));
        self
    }
    /// Sets `alias A = …`.
    pub fn element(mut self, element: Element) -> Source {
        self.alias = Some(element);
        self
    }
    /// Adds a constant.
    pub fn constant(mut self, name: &'static str, value: Const) -> Source {
        self.constants.push((name, value));
        self
    }
    /// Adds functions: hooks of the skeleton and what they call.
    pub fn functions(mut self, text: impl Into<String>) -> Source {
        self.functions.push(text.into());
        self
    }
    /// The complete WGSL.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |text: std::fmt::Arguments| {
            out.write_fmt(text).expect("writing to a string");
            out.push('\n');
        };
        for name in &self.enables {
            line(format_args!("enable {name};"));
        }
        for (i, (access, unit)) in self.bindings.iter().enumerate() {
            let access = match access {
                Access::Read => "read",
                Access::ReadWrite => "read_write",
            };
            let unit = match unit {
                Unit::Words => "vec4<u32>",
                Unit::Pairs => "vec2<u64>",
            };
            line(format_args!("@group(0) @binding({i}) var<storage, {access}> b{i}: array<{unit}>;"));
        }
        if let Some(element) = self.alias {
            line(format_args!("alias A = {};", element.wgsl()));
        }
        for (name, value) in &self.constants {
            match value {
                Const::U32(x) => line(format_args!("const {name}: u32 = {x}u;")),
                Const::I32(x) => line(format_args!("const {name}: i32 = i32({x});")),
                Const::F32(x) => line(format_args!("const {name}: f32 = {x:?}f;")),
                Const::Bool(x) => line(format_args!("const {name}: bool = {x};")),
            }
        }
        let parts: Vec<&str> = self.functions.iter().map(String::as_str).chain([self.skeleton]).collect();
        for function in library::used(&parts) {
            line(format_args!("\n{}", function.trim_end()));
        }
        for part in parts {
            line(format_args!("\n{}", part.trim()));
        }
        out
    }
}
