//! The text form's parser: `parse(print(m)) = m`.
//!
//! Errors stay within their line: the parser goes on at the next one, and a value whose statement was wrong is not
//! reported again where it is used. Codes: P1 characters, P2 syntax, P3 unknown names of the language, P4 values
//! (used before definition, defined twice), P5 a declared type that is not the inferred one, P6 attributes,
//! P7 numbers out of range, and an operator's own constraints (`reduce C1`).

mod attr;
mod body;
mod cursor;
mod schedule;

use crate::attr::Attr;
use crate::diag::{Diagnostic, Diagnostics, Place};
use crate::func::{Call, CallId, Def, Function, Return, Target, Value, ValueId};
use crate::lex::{Kind, lex};
use crate::module::{Module, StateDecl, WeightDecl};
use crate::ops::{Input, Op, OpKind};
use crate::scalar::Body;
use crate::shape::TensorType;
use cursor::Cursor;
use std::collections::HashMap;

/// Parses a module; declared types are checked against inferred ones. Without a `module` line the name is empty, so
/// that a lone function is a module, too.
///
/// Calls, declarations and the schedule are not checked here but by [`crate::verify::verify`].
///
/// # Errors
/// All errors found, with their places.
pub fn parse(text: &str) -> Result<Module, Diagnostics> {
    let (tokens, mut errors) = lex(text);
    let mut parser = Parser { cursor: Cursor::new(text, &tokens), errors: Vec::new(), module: Module::default() };
    parser.module();
    errors.append(&mut parser.errors);
    errors.sort_by_key(|d| d.place);
    if errors.is_empty() { Ok(parser.module) } else { Err(Diagnostics(errors)) }
}

/// Parses a scalar body alone, as in `{x| x * sigmoid(x)}`.
///
/// # Errors
/// The first error, with its place in the text.
pub fn body(text: &str) -> Result<Body, Diagnostic> {
    let (tokens, errors) = lex(text);
    if let Some(error) = errors.into_iter().next() {
        return Err(error);
    }
    let mut cursor = Cursor::new(text, &tokens);
    let body = cursor.body()?;
    cursor.line_end()?;
    Ok(body)
}

struct Parser<'a> {
    cursor: Cursor<'a>,
    errors: Vec<Diagnostic>,
    module: Module,
}

/// What a name stands for: a value, or nothing because its statement was wrong.
type Names = HashMap<String, Option<ValueId>>;

impl Parser<'_> {
    fn module(&mut self) {
        loop {
            self.cursor.skip_lines();
            if self.cursor.at_end() {
                return;
            }
            let from = self.cursor.position();
            if let Err(error) = self.item() {
                self.errors.push(error);
                self.cursor.recover(from);
            }
        }
    }
    fn item(&mut self) -> Result<(), Diagnostic> {
        const ITEMS: [&str; 5] = ["module", "weight", "state", "fn", "schedule"];
        let place = self.cursor.place();
        match self.cursor.word()? {
            "module" => {
                self.module.name = self.cursor.function()?;
                self.cursor.line_end()
            }
            "weight" => {
                let (name, ty) = self.declaration()?;
                self.module.weights.push(WeightDecl { name, ty });
                Ok(())
            }
            "state" => {
                let (name, ty) = self.declaration()?;
                self.module.states.push(StateDecl { name, ty });
                Ok(())
            }
            "fn" => self.function(),
            "schedule" => {
                let (schedule, mut errors) = self.cursor.schedule()?;
                self.errors.append(&mut errors);
                self.module.schedule = schedule;
                Ok(())
            }
            other => Err(cursor::unknown("item", other, ITEMS).at(Some(place))),
        }
    }
    fn declaration(&mut self) -> Result<(String, TensorType), Diagnostic> {
        let name = self.cursor.text()?;
        self.cursor.mark(":")?;
        let ty = self.cursor.tensor_type()?;
        self.cursor.line_end()?;
        Ok((name, ty))
    }
    /// A function; its header's errors skip the whole function.
    fn function(&mut self) -> Result<(), Diagnostic> {
        let mut function = Function::default();
        let mut names = Names::new();
        let from = self.cursor.position();
        let header = self.header(&mut function, &mut names);
        let good_header = header.is_ok();
        let results = header.unwrap_or_else(|error| {
            self.errors.push(error);
            self.cursor.recover(from);
            None
        });
        let mut returned = false;
        loop {
            self.cursor.skip_lines();
            if self.cursor.take("}") {
                break;
            }
            if self.cursor.at_end() || self.cursor.at_item() {
                return Err(self.cursor.expected("`}` at the end of the function"));
            }
            let from = self.cursor.position();
            if !good_header {
                self.cursor.recover(from);
                continue;
            }
            let place = self.cursor.place();
            let step = if returned {
                Err(Diagnostic::new("P2", "a statement after `return`").at(Some(place)))
            } else if self.cursor.take_word("return") {
                returned = true;
                self.returns(&mut function, &names, &results)
            } else {
                self.statement(&mut function, &mut names)
            };
            if let Err(error) = step {
                self.errors.push(error);
                self.cursor.recover(from);
            }
        }
        if good_header && !returned {
            return Err(Diagnostic::new("P2", format!("function `{}` has no `return`", function.name))
                .at(Some(self.cursor.last_place())));
        }
        self.module.functions.push(function);
        self.cursor.line_end()
    }
    /// `@name(%x: f32[2], …) -> f32[2], … {`; the result types may be left out.
    fn header(
        &mut self,
        function: &mut Function,
        names: &mut Names,
    ) -> Result<Option<Vec<(TensorType, Place)>>, Diagnostic> {
        function.name = self.cursor.function()?;
        self.cursor.mark("(")?;
        while !self.cursor.take(")") {
            let place = self.cursor.place();
            let name = self.cursor.value()?;
            self.cursor.mark(":")?;
            let ty = self.cursor.tensor_type()?;
            let op = Op::Input(Input { name: name.clone(), ty: ty.clone() });
            let def = Def::Op { op, args: Vec::new() };
            self.define(function, names, name.clone(), def, ty, place);
            if !self.cursor.take(",") && !self.cursor.is(")") {
                return Err(self.cursor.expected("`,` or `)`"));
            }
        }
        let mut results = None;
        if self.cursor.take("->") {
            let mut types = Vec::new();
            loop {
                let place = self.cursor.place();
                types.push((self.cursor.tensor_type()?, place));
                if !self.cursor.take(",") {
                    break;
                }
            }
            results = Some(types);
        }
        self.cursor.mark("{")?;
        self.cursor.line_end()?;
        Ok(results)
    }
    /// `%a, %b = …`: on an error the names are defined as wrong, so that their uses are not reported.
    fn statement(&mut self, function: &mut Function, names: &mut Names) -> Result<(), Diagnostic> {
        let mut results: Vec<(String, Place)> = Vec::new();
        let step = (|| {
            loop {
                let place = self.cursor.place();
                results.push((self.cursor.value()?, place));
                if !self.cursor.take(",") {
                    break;
                }
            }
            self.cursor.mark("=")?;
            let place = self.cursor.place();
            match self.cursor.word()? {
                "call" => self.call(function, names, &results),
                word => self.operator(function, names, &results, word, place),
            }
        })();
        for (name, _) in results {
            names.entry(name).or_insert(None);
        }
        step
    }
    fn operator(
        &mut self,
        function: &mut Function,
        names: &mut Names,
        results: &[(String, Place)],
        word: &str,
        place: Place,
    ) -> Result<(), Diagnostic> {
        let known = OpKind::ALL.iter().map(|k| k.text()).filter(|t| *t != "input");
        let Some(kind) = OpKind::parse(word).filter(|k| *k != OpKind::Input) else {
            return Err(cursor::unknown("operator", word, known.chain(["call"])).at(Some(place)));
        };
        let args = self.operands(names)?;
        let pending = self.cursor.attributes(kind)?;
        self.cursor.mark(":")?;
        let type_place = self.cursor.place();
        let ty = self.cursor.tensor_type()?;
        self.cursor.line_end()?;
        let (Some(args), [(name, name_place)]) = (args, results) else {
            return match results {
                [_] => Ok(()), // an operand's own statement was reported
                _ => Err(Diagnostic::new("P2", format!("`{word}` has one result")).at(Some(results[1].1))),
            };
        };
        let attrs: Vec<Attr> = pending.finish(&ty)?;
        let op = Op::from_attrs(kind, &attrs).map_err(|attribute| {
            Diagnostic::new("P6", format!("`{word}` does not take this value of `{attribute}`")).at(Some(place))
        })?;
        let types: Vec<&TensorType> = args.iter().map(|a| function.ty(*a)).collect();
        match op.infer(&types) {
            Err(error) => self.errors.push(error.diagnostic(word).at(Some(place))),
            Ok(inferred) if inferred != ty => self.errors.push(wrong_type(&ty, &inferred, type_place)),
            Ok(_) => {}
        }
        // After a wrong type the declared one stands, so that the statements that follow are still checked.
        self.define(function, names, name.clone(), Def::Op { op, args }, ty, *name_place);
        Ok(())
    }
    /// Operands after the operator's name; `None` if one was defined by a wrong statement.
    fn operands(&mut self, names: &Names) -> Result<Option<Vec<ValueId>>, Diagnostic> {
        let mut args = Some(Vec::new());
        while matches!(self.cursor.peek(), Kind::Value(_)) {
            let id = self.operand(names)?;
            args = args.zip(id).map(|(mut args, id)| {
                args.push(id);
                args
            });
            if !self.cursor.take(",") {
                break;
            }
        }
        Ok(args)
    }
    fn operand(&mut self, names: &Names) -> Result<Option<ValueId>, Diagnostic> {
        let place = self.cursor.place();
        let name = self.cursor.value()?;
        names.get(&name).copied().ok_or_else(|| {
            let mut d = Diagnostic::new("P4", format!("`%{name}` is not defined before this line")).at(Some(place));
            d.help = cursor::nearest(&name, names.keys().map(String::as_str)).map(|n| format!("did you mean `%{n}`?"));
            d
        })
    }
    /// `call @f(%x, …) : f32[2], …`
    fn call(
        &mut self,
        function: &mut Function,
        names: &mut Names,
        results: &[(String, Place)],
    ) -> Result<(), Diagnostic> {
        let callee = self.cursor.function()?;
        self.cursor.mark("(")?;
        let args = self.operands(names)?;
        self.cursor.mark(")")?;
        self.cursor.mark(":")?;
        let place = self.cursor.place();
        let mut types = vec![self.cursor.tensor_type()?];
        while self.cursor.take(",") {
            types.push(self.cursor.tensor_type()?);
        }
        self.cursor.line_end()?;
        if types.len() != results.len() {
            return Err(Diagnostic::new("P2", "a call has one type for each result")
                .expected_found(results.len(), types.len())
                .at(Some(place)));
        }
        let Some(args) = args else { return Ok(()) };
        let call = CallId(function.calls.len() as u32);
        function.calls.push(Call { function: callee, args });
        for (index, ((name, place), ty)) in results.iter().zip(types).enumerate() {
            let def = Def::Result { call, index: index as u32 };
            self.define(function, names, name.clone(), def, ty, *place);
        }
        Ok(())
    }
    fn define(
        &mut self,
        function: &mut Function,
        names: &mut Names,
        name: String,
        def: Def,
        ty: TensorType,
        place: Place,
    ) {
        let id = ValueId(function.values.len() as u32);
        // Numbers are canonical names, not hints.
        let hint = matches!(def, Def::Op { op: Op::Input(_), .. }) || !name.bytes().all(|c| c.is_ascii_digit());
        function.values.push(Value { def, ty, name: hint.then(|| name.clone()), places: vec![place] });
        if names.insert(name.clone(), Some(id)).is_some() {
            self.errors.push(Diagnostic::new("P4", format!("`%{name}` is defined twice")).at(Some(place)));
        }
    }
    /// `name=%v, state "kv"=%w` after `return`.
    fn returns(
        &mut self,
        function: &mut Function,
        names: &Names,
        declared: &Option<Vec<(TensorType, Place)>>,
    ) -> Result<(), Diagnostic> {
        let place = self.cursor.last_place();
        let mut whole = true;
        while !self.cursor.at_line_end() {
            let target = if self.cursor.is_word("state") && self.cursor.next_is_text() {
                self.cursor.take_word("state");
                Target::State(self.cursor.text()?)
            } else {
                Target::Output(self.cursor.word_or_text()?)
            };
            self.cursor.mark("=")?;
            match self.operand(names)? {
                Some(value) => function.returns.push(Return { target, value }),
                None => whole = false,
            }
            if !self.cursor.take(",") {
                break;
            }
        }
        self.cursor.line_end()?;
        let Some(declared) = declared.as_ref().filter(|_| whole) else { return Ok(()) };
        if declared.len() != function.returns.len() {
            return Err(Diagnostic::new("P5", "the header declares another number of results")
                .expected_found(declared.len(), function.returns.len())
                .at(Some(place)));
        }
        for (returned, (ty, place)) in function.returns.iter().zip(declared) {
            let inferred = function.ty(returned.value);
            if inferred != ty {
                self.errors.push(wrong_type(ty, inferred, *place));
            }
        }
        Ok(())
    }
}

fn wrong_type(declared: &TensorType, inferred: &TensorType, place: Place) -> Diagnostic {
    let mut d = Diagnostic::new("P5", format!("declared {declared}, inferred {inferred}")).at(Some(place));
    d.help = Some(format!("write `: {inferred}`, or change the operator"));
    d
}
