//! Type-checks an expression, and replaces names with values known before evaluation.

use super::{
    cost,
    declarations::{self, Declaration},
    invalid::{InvalidExpression, Located},
    program::{PATH, PATTERN, Path, Pattern, Program},
    types::{Bindings, Type},
};
use crate::proto::schema::{self, FieldType};
use cel::{
    IdedExpr,
    common::{
        ast::{
            CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SourceInfo,
            operators::{LOGICAL_AND, LOGICAL_OR},
        },
        types::CelInt,
    },
    parser::Parser,
};

/// The variable of the flow.
const FLOW: &str = "_flow";
/// The package in which names are looked up.
const CONTAINER: &str = "flow";
/// The limit of nesting.
const DEEPEST: usize = 32;
/// The limit of patterns in an expression: each may take as much memory as any regular expression.
const PATTERNS: usize = 4;
/// The stack for parsing: the library recurses once for each operator of a chain.
const STACK: usize = 64 << 20;

/// Parses and checks an expression.
///
/// # Errors
/// The expression can't be a filter; the text is that of Hubble's server.
pub(super) fn check(text: &str) -> Result<Program, InvalidExpression> {
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().name("cel".into()).stack_size(STACK);
        let read =
            reader.spawn_scoped(scope, || read(text)).map_err(|error| InvalidExpression::Thread(error.kind()))?;
        read.join().unwrap_or(Err(InvalidExpression::Unreadable))
    })
}

fn read(text: &str) -> Result<Program, InvalidExpression> {
    let (mut expression, source) = Parser::new().parse_with_source_info(text).map_err(|errors| {
        // An empty text has no column and no line to show.
        let at = |(line, column)| if text.is_empty() { (line, 0) } else { (line, column) };
        let errors = errors.errors.iter().map(|error| Located::new(text, at(error.pos), &error.msg));
        InvalidExpression::Errors(errors.collect())
    })?;
    let mut checker = Checker { source, program: Program::default(), scopes: Vec::new(), errors: Vec::new(), depth: 0 };
    let found = checker.expression(&mut expression);
    let Checker { source, mut program, mut errors, .. } = checker;
    if !errors.is_empty() {
        errors.sort_by_key(|(at, _)| *at);
        let errors = errors.iter().map(|(at, error)| Located::new(text, position(&source.source, *at), error));
        return Err(InvalidExpression::Errors(errors.collect()));
    }
    if !matches!(found, Type::Bool) {
        return Err(InvalidExpression::Result(found.as_result()));
    }
    cost::bound(&expression)?;
    program.expression = expression;
    Ok(program)
}

/// The line and column of an offset, both from 1.
fn position(text: &str, offset: u32) -> (isize, isize) {
    let before: String = text.chars().take(offset as usize).collect();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line as isize, column as isize)
}

struct Checker {
    source: SourceInfo,
    program: Program,
    /// The variables of comprehensions, the innermost last.
    scopes: Vec<(String, Type)>,
    errors: Vec<(u32, String)>,
    depth: usize,
}

impl Checker {
    fn refuse(&mut self, at: &IdedExpr, error: impl Into<String>) -> Type {
        let offset = self.source.offset_for(at.id).map_or(0, |(start, _)| start);
        self.errors.push((offset, error.into()));
        Type::Error
    }

    fn expression(&mut self, expression: &mut IdedExpr) -> Type {
        if self.depth == DEEPEST {
            return self.refuse(expression, format!("the expression is deeper than {DEEPEST}"));
        }
        self.depth += 1;
        let found = self.any(expression);
        self.depth -= 1;
        found
    }

    fn any(&mut self, expression: &mut IdedExpr) -> Type {
        if let Some((path, is_test)) = self.flow_path(expression) {
            return self.path(expression, &path, is_test);
        }
        if let Some(value) = qualified(&expression.expr).and_then(|name| self.constant(&name)) {
            expression.expr = Expr::Literal(LiteralValue::Int(CelInt::from(i64::from(value))));
            return Type::Int;
        }
        match &mut expression.expr {
            Expr::Unspecified => Type::Error,
            Expr::Literal(literal) => match literal {
                LiteralValue::Boolean(_) => Type::Bool,
                LiteralValue::Bytes(_) => Type::Bytes,
                LiteralValue::Double(_) => Type::Double,
                LiteralValue::Int(_) => Type::Int,
                LiteralValue::Null => Type::Null,
                LiteralValue::String(_) => Type::String,
                LiteralValue::UInt(_) => Type::Uint,
            },
            Expr::Ident(name) => {
                let name = name.clone();
                self.name(expression, &name)
            }
            Expr::Select(_) => self.select(expression),
            Expr::Call(_) => self.call(expression),
            Expr::List(list) => {
                let types = list.elements.iter_mut().map(|element| self.expression(element));
                Type::list(types.reduce(Type::join).unwrap_or(Type::Nothing))
            }
            Expr::Map(_) => self.map(expression),
            Expr::Struct(message) => {
                let name = message.type_name.clone();
                self.refuse(expression, format!("messages can't be made here: '{name}'"))
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
        }
    }

    fn name(&mut self, at: &IdedExpr, name: &str) -> Type {
        if let Some((_, found)) = self.scopes.iter().rev().find(|(known, _)| known == name) {
            return found.clone();
        }
        match name {
            "bool" | "int" | "uint" | "double" | "string" | "bytes" | "list" | "map" | "null_type" | "type" => {
                Type::Meta
            }
            name => self.refuse(at, format!("undeclared reference to '{name}' (in container '{CONTAINER}')")),
        }
    }

    /// The value of an enum, unless a comprehension's variable shadows its first name.
    fn constant(&self, name: &str) -> Option<i32> {
        let first = name.split('.').next().unwrap_or_default();
        if self.scopes.iter().any(|(known, _)| known == first) {
            return None;
        }
        let name = name.strip_prefix('.').unwrap_or(name);
        schema::enum_value(&format!("{CONTAINER}.{name}")).or_else(|| schema::enum_value(name))
    }

    /// The fields of a path that begins at the flow, and whether it tests the last field for presence.
    fn flow_path(&self, expression: &IdedExpr) -> Option<(Vec<Step>, bool)> {
        if self.scopes.iter().any(|(known, _)| known == FLOW) {
            return None;
        }
        let (mut steps, mut is_test, mut at) = (Vec::new(), false, expression);
        loop {
            match &at.expr {
                // Only the last field can be tested for presence.
                Expr::Select(select) if !select.test || steps.is_empty() => {
                    is_test |= select.test;
                    steps.push(Step { name: select.field.clone(), id: at.id });
                    at = &select.operand;
                }
                Expr::Ident(name) if name.trim_start_matches('.') == FLOW => break,
                _ => return None,
            }
        }
        steps.reverse();
        Some((steps, is_test))
    }

    /// Replaces a path by one name, as far as it goes through messages of the build.
    fn path(&mut self, expression: &mut IdedExpr, steps: &[Step], is_test: bool) -> Type {
        let Some(flow) = schema::message("flow.Flow") else { return Type::Error };
        let (mut fields, mut found): (Vec<&'static FieldType>, _) = (Vec::new(), Type::Message(flow));
        let mut rest = steps;
        while let (Type::Message(message), [step, after @ ..]) = (&found, rest) {
            let Some(field) = message.field(&step.name) else {
                return self.refuse_at(step.id, format!("undefined field '{}'", step.name));
            };
            fields.push(field);
            found = Type::of_field(field);
            rest = after;
        }
        let is_whole = rest.is_empty();
        let mut known = self.known_path(fields, is_test && is_whole, expression.id);
        if is_whole {
            *expression = known;
            return if is_test { Type::Bool } else { found };
        }
        // The rest of the path is resolved at evaluation.
        for (index, step) in rest.iter().enumerate() {
            found = match found {
                Type::Dyn | Type::Any | Type::Error => Type::Dyn,
                Type::Map(_, value) => *value,
                other => {
                    return self.refuse_at(step.id, format!("type '{other}' does not support field selection"));
                }
            };
            let test = is_test && index + 1 == rest.len();
            let select = cel::common::ast::SelectExpr { operand: Box::new(known), field: step.name.clone(), test };
            known = IdedExpr { id: step.id, expr: Expr::Select(select) };
        }
        *expression = known;
        if is_test { Type::Bool } else { found }
    }

    fn known_path(&mut self, fields: Vec<&'static FieldType>, is_test: bool, id: u64) -> IdedExpr {
        let name = format!("{PATH}{}", self.program.paths.len());
        self.program.paths.push(Path { fields, is_test });
        IdedExpr { id, expr: Expr::Ident(name) }
    }

    fn refuse_at(&mut self, id: u64, error: String) -> Type {
        self.refuse(&IdedExpr { id, expr: Expr::Unspecified }, error)
    }

    fn select(&mut self, expression: &mut IdedExpr) -> Type {
        let id = expression.id;
        let Expr::Select(select) = &mut expression.expr else { return Type::Error };
        let operand = self.expression(&mut select.operand);
        let found = match operand {
            Type::Dyn | Type::Any => Type::Dyn,
            Type::Error => Type::Error,
            Type::Map(_, value) => *value,
            Type::Message(message) => match message.field(&select.field) {
                Some(field) => {
                    if select.test {
                        // The message itself answers whether the field is set; `?` before the name asks it.
                        select.test = false;
                        select.field.insert(0, '?');
                        return Type::Bool;
                    }
                    Type::of_field(field)
                }
                None => {
                    let error = format!("undefined field '{}'", select.field);
                    return self.refuse_at(id, error);
                }
            },
            other => return self.refuse_at(id, format!("type '{other}' does not support field selection")),
        };
        if select.test { Type::Bool } else { found }
    }

    fn call(&mut self, expression: &mut IdedExpr) -> Type {
        let id = expression.id;
        let Expr::Call(call) = &mut expression.expr else { return Type::Error };
        let name = call.func_name.clone();
        if matches!(name.as_str(), LOGICAL_AND | LOGICAL_OR) {
            return self.chain(expression, &name);
        }
        let declarations = declarations::named(&name);
        let mut arguments = Vec::new();
        if let Some(target) = &mut call.target {
            arguments.push(self.expression(target));
        }
        arguments.extend(call.args.iter_mut().map(|argument| self.expression(argument)).collect::<Vec<_>>());
        let is_member = call.target.is_some();
        if declarations.is_empty() {
            let error = format!("undeclared reference to '{name}' (in container '{CONTAINER}')");
            return self.refuse_at(id, error);
        }
        let Some(found) = result(declarations, is_member, &arguments) else {
            let (target, arguments) = arguments.split_at(usize::from(is_member));
            let shown: Vec<String> = arguments.iter().map(ToString::to_string).collect();
            let target: String = target.iter().map(|target| format!("{target}.")).collect();
            let error = format!("found no matching overload for '{name}' applied to '{target}({})'", shown.join(", "));
            return self.refuse_at(id, error);
        };
        if name == "matches" { self.matches(expression) } else { found }
    }

    /// `a || b || c`, or with `&&`: a chain of any length is evaluated as a low tree.
    fn chain(&mut self, expression: &mut IdedExpr, operator: &str) -> Type {
        let (id, mut operands, mut rest) = (expression.id, Vec::new(), std::mem::take(expression));
        loop {
            match &mut rest.expr {
                Expr::Call(call) if call.func_name == operator && call.args.len() == 2 => {
                    operands.extend(call.args.pop());
                    rest = call.args.remove(0);
                }
                _ => break,
            }
        }
        operands.push(rest);
        operands.reverse();
        for operand in &mut operands {
            let found = self.expression(operand);
            if !found.fits(&Type::Bool, &mut Bindings::new()) {
                self.refuse(operand, format!("expected type 'bool' but found '{found}'"));
            }
        }
        *expression = balanced(id, operator, operands);
        Type::Bool
    }

    /// Compiles a pattern once, instead of for each flow.
    fn matches(&mut self, expression: &mut IdedExpr) -> Type {
        let id = expression.id;
        let Expr::Call(call) = &mut expression.expr else { return Type::Error };
        // As a member or as a function: the text is the first argument.
        call.args.splice(..0, call.target.take().map(|target| *target));
        let Some(pattern) = call.args.get_mut(1) else { return Type::Error };
        let Expr::Literal(LiteralValue::String(text)) = &pattern.expr else {
            return self.refuse_at(id, "the pattern of 'matches' must be a constant".into());
        };
        if self.program.patterns.len() == PATTERNS {
            return self.refuse_at(id, format!("more than {PATTERNS} patterns in an expression"));
        }
        match Pattern::new(text.inner()) {
            Ok(known) => {
                pattern.expr = Expr::Ident(format!("{PATTERN}{}", self.program.patterns.len()));
                self.program.patterns.push(known);
                Type::Bool
            }
            Err(error) => self.refuse_at(id, error.to_string()),
        }
    }

    fn map(&mut self, expression: &mut IdedExpr) -> Type {
        let id = expression.id;
        let Expr::Map(map) = &mut expression.expr else { return Type::Error };
        let (mut keys, mut values) = (None::<Type>, None::<Type>);
        for entry in &mut map.entries {
            let EntryExpr::MapEntry(entry) = &mut entry.expr else {
                return self.refuse_at(id, "not a map".into());
            };
            let (key, value) = (self.expression(&mut entry.key), self.expression(&mut entry.value));
            keys = Some(keys.map_or_else(|| key.clone(), |keys| keys.join(key.clone())));
            values = Some(values.map_or_else(|| value.clone(), |values| values.join(value.clone())));
        }
        Type::Map(Box::new(keys.unwrap_or(Type::Dyn)), Box::new(values.unwrap_or(Type::Dyn)))
    }

    fn comprehension(&mut self, comprehension: &mut ComprehensionExpr) -> Type {
        let range = self.expression(&mut comprehension.iter_range);
        let element = match range {
            Type::List(of) => *of,
            Type::Map(key, _) => *key,
            Type::Dyn | Type::Any | Type::Error => Type::Dyn,
            other => {
                let error = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                return self.refuse(&comprehension.iter_range, error);
            }
        };
        let mut accumulator = self.expression(&mut comprehension.accu_init);
        self.scopes.push((comprehension.iter_var.clone(), element));
        if let Some(second) = &comprehension.iter_var2 {
            self.scopes.push((second.clone(), Type::Dyn));
        }
        self.scopes.push((comprehension.accu_var.clone(), accumulator.clone()));
        self.expression(&mut comprehension.loop_cond);
        let step = self.expression(&mut comprehension.loop_step);
        // The elements added to an empty list decide its type.
        if let Type::List(_) = accumulator {
            accumulator = accumulator.join(step);
        }
        self.scopes.truncate(self.scopes.len() - 2 - usize::from(comprehension.iter_var2.is_some()));
        self.scopes.push((comprehension.accu_var.clone(), accumulator));
        let found = self.expression(&mut comprehension.result);
        self.scopes.pop();
        found
    }
}

fn balanced(id: u64, operator: &str, mut operands: Vec<IdedExpr>) -> IdedExpr {
    if operands.len() == 1 {
        return operands.remove(0);
    }
    let right = operands.split_off(operands.len().div_ceil(2));
    let args = vec![balanced(id, operator, operands), balanced(id, operator, right)];
    IdedExpr { id, expr: Expr::Call(CallExpr { func_name: operator.to_owned(), target: None, args }) }
}

/// A field of a path, and its position in the text.
struct Step {
    name: String,
    id: u64,
}

/// The result type of the overloads for these arguments; `None` if there are none.
fn result(declarations: &[Declaration], is_member: bool, arguments: &[Type]) -> Option<Type> {
    let mut found = None;
    for declaration in declarations {
        if declaration.is_member != is_member || declaration.arguments.len() != arguments.len() {
            continue;
        }
        let mut bindings = Bindings::new();
        let fits = |(has, wanted): (&Type, &Type)| has.fits(wanted, &mut bindings);
        if arguments.iter().zip(&declaration.arguments).all(fits) {
            let result = declaration.result.with(&bindings);
            found = Some(match found {
                None => result,
                // While argument types are open, several overloads may match.
                Some(other) if std::mem::discriminant(&other) == std::mem::discriminant(&result) => other,
                Some(_) => Type::Dyn,
            });
        }
    }
    found
}

/// `a.b.c`, if the expression consists of names only.
fn qualified(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) if !select.test => Some(format!("{}.{}", qualified(&select.operand.expr)?, select.field)),
        _ => None,
    }
}
