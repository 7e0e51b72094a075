//! The query part of a request: parsed strictly, refused as the service refuses.
//!
//! Rules from "Use query parameters to customize Microsoft Graph query responses" and "List
//! messages". The service ignores some unknown plain parameters; the fake refuses them, because in
//! a client they can only be a mistake.

use super::reply::Refusal;
use std::collections::BTreeSet;

/// The options of one request.
#[derive(Debug, Default, Clone)]
pub(crate) struct Options {
    pub(crate) select: Option<Vec<String>>,
    pub(crate) expand: Vec<Expand>,
    pub(crate) filter: Option<Expr>,
    pub(crate) order_by: Vec<(String, bool)>,
    pub(crate) top: Option<u64>,
    pub(crate) skip: u64,
    pub(crate) skip_token: Option<String>,
    pub(crate) delta_token: Option<String>,
    pub(crate) count: bool,
    pub(crate) search: Option<String>,
    pub(crate) include_hidden: bool,
    pub(crate) change_type: Option<String>,
    /// All parameters as they came, for the next link.
    pub(crate) raw: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Expand {
    pub(crate) path: String,
    pub(crate) select: Option<Vec<String>>,
    pub(crate) filter: Option<Expr>,
}

/// A parsed `$filter`.
#[derive(Debug, Clone)]
pub(crate) enum Expr {
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    Compare(String, Op, Literal),
    Call(Function, String, String),
    /// `collection/any(x: ...)`; inside, the variable is named `$it`.
    Any(String, Box<Expr>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Contains,
    StartsWith,
    EndsWith,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Number(i64),
    /// Microseconds since 1970.
    Time(i64),
    Text(String),
}

/// The type of a property that may stand in a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edm {
    Text,
    Bool,
    Time,
    Number,
    /// A collection of texts, for `any`.
    Texts,
}

impl Edm {
    fn name(self) -> &'static str {
        match self {
            Edm::Text | Edm::Texts => "Edm.String",
            Edm::Bool => "Edm.Boolean",
            Edm::Time => "Edm.DateTimeOffset",
            Edm::Number => "Edm.Int32",
        }
    }
}

/// What a collection allows.
pub(crate) struct Schema {
    /// As in error messages: `microsoft.graph.message`.
    pub(crate) type_name: &'static str,
    pub(crate) options: &'static [&'static str],
    pub(crate) properties: &'static [&'static str],
    pub(crate) filterable: &'static [(&'static str, Edm)],
    pub(crate) sortable: &'static [&'static str],
    pub(crate) expandable: &'static [&'static str],
    pub(crate) max_top: u64,
}

/// Splits and decodes a query string, with every name at most once.
pub(crate) fn pairs(query: &str) -> Result<Vec<(String, String)>, Refusal> {
    let mut found: Vec<(String, String)> = Vec::new();
    for piece in query.split('&').filter(|piece| !piece.is_empty()) {
        let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
        let (name, value) = (decode(name, true)?, decode(value, true)?);
        if found.iter().any(|(known, _)| known.eq_ignore_ascii_case(&name)) {
            return Err(Refusal::bad_request(format!(
                "Query option '{name}' was specified more than once, but it must be specified at most once."
            )));
        }
        found.push((name, value));
    }
    Ok(found)
}

/// Percent-decodes; in a query `+` is a blank.
pub(crate) fn decode(text: &str, plus: bool) -> Result<String, Refusal> {
    let malformed = || Refusal::bad_request("The request URI is malformed.");
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                let hex = text.get(at + 1..at + 3).ok_or_else(malformed)?;
                out.push(u8::from_str_radix(hex, 16).map_err(|_| malformed())?);
                at += 3;
            }
            b'+' if plus => {
                out.push(b' ');
                at += 1;
            }
            byte => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).map_err(|_| malformed())
}

impl Options {
    pub(crate) fn parse(query: &str, schema: &Schema) -> Result<Options, Refusal> {
        let mut options = Options { raw: pairs(query)?, ..Options::default() };
        for (name, value) in options.raw.clone() {
            if !schema.options.iter().any(|option| option.eq_ignore_ascii_case(&name)) {
                return Err(Refusal::bad_request(format!("The query parameter '{name}' is not supported.")));
            }
            match name.to_ascii_lowercase().as_str() {
                "$select" => options.select = Some(select(&value, schema)?),
                "$expand" => options.expand = expand(&value, schema)?,
                "$filter" => options.filter = Some(Parser::parse(&value, schema.filterable)?),
                "$orderby" => options.order_by = order_by(&value, schema)?,
                "$top" => {
                    let top: Option<u64> = value.parse().ok();
                    match top {
                        Some(top) if (1..=schema.max_top).contains(&top) => {
                            options.top = Some(top);
                        }
                        // Code not documented; this one names the parameter.
                        _ => {
                            return Err(Refusal::new(
                                400,
                                "ErrorInvalidUrlQuery",
                                format!(
                                    "Invalid value '{value}' for $top query option found. The $top query option requires a non-negative integer value between 1 and {}.",
                                    schema.max_top
                                ),
                            ));
                        }
                    }
                }
                "$skip" => {
                    options.skip = value.parse().map_err(|_| {
                        Refusal::bad_request(format!(
                            "Invalid value '{value}' for $skip query option found. The $skip query option requires a non-negative integer value."
                        ))
                    })?;
                }
                "$skiptoken" => options.skip_token = Some(value),
                "$deltatoken" => options.delta_token = Some(value),
                "$count" => options.count = boolean("$count", &value)?,
                "$search" => {
                    if !(value.len() > 2 && value.starts_with('"') && value.ends_with('"')) {
                        return Err(Refusal::bad_request(
                            "Syntax error: the $search value must be enclosed in double quotes.",
                        ));
                    }
                    options.search = Some(value.trim_matches('"').to_owned());
                }
                "includehiddenfolders" => {
                    options.include_hidden = boolean("includeHiddenFolders", &value)?;
                }
                "changetype" => {
                    if !["created", "updated", "deleted"].contains(&value.as_str()) {
                        return Err(Refusal::bad_request("The changeType is not valid."));
                    }
                    options.change_type = Some(value);
                }
                _ => {}
            }
        }
        if options.search.is_some() {
            if !options.order_by.is_empty() {
                return Err(Refusal::new(
                    400,
                    "SearchWithOrderBy",
                    "The query parameter '$orderBy' is not supported with '$search'.",
                ));
            }
            if options.filter.is_some() {
                return Err(Refusal::new(
                    400,
                    "SearchWithFilter",
                    "The query parameter '$filter' is not supported with '$search'.",
                ));
            }
        }
        Ok(options)
    }

    /// "Using filter and orderby in the same query" of "List messages": every sorted property is
    /// filtered on too, in the same order and before the others.
    pub(crate) fn check_efficient(&self) -> Result<(), Refusal> {
        let Some(filter) = &self.filter else {
            return Ok(());
        };
        let mut filtered = Vec::new();
        filter.properties(&mut filtered);
        let ordered = self.order_by.iter().enumerate().all(|(at, (property, _))| filtered.get(at) == Some(property));
        if ordered {
            Ok(())
        } else {
            Err(Refusal::new(
                400,
                "InefficientFilter",
                "The restriction or sort order is too complex for this operation.",
            ))
        }
    }
}

fn boolean(name: &str, value: &str) -> Result<bool, Refusal> {
    match value {
        "true" | "True" => Ok(true),
        "false" | "False" => Ok(false),
        _ => Err(Refusal::bad_request(format!("Invalid value '{value}' for {name} query option found."))),
    }
}

fn select(value: &str, schema: &Schema) -> Result<Vec<String>, Refusal> {
    let mut properties = Vec::new();
    for name in value.split(',').map(str::trim) {
        let known = schema.properties.iter().find(|property| property.eq_ignore_ascii_case(name));
        match known {
            Some(property) => properties.push((*property).to_owned()),
            None => {
                return Err(Refusal::new(
                    400,
                    "RequestBroker--ParseUri",
                    format!("Could not find a property named '{name}' on type '{}'.", schema.type_name),
                ));
            }
        }
    }
    Ok(properties)
}

fn order_by(value: &str, schema: &Schema) -> Result<Vec<(String, bool)>, Refusal> {
    let mut order = Vec::new();
    for piece in value.split(',') {
        let mut words = piece.split_whitespace();
        let name = words.next().unwrap_or_default();
        let descending = match words.next() {
            None | Some("asc") => false,
            Some("desc") => true,
            Some(other) => {
                return Err(Refusal::bad_request(format!(
                    "Syntax error at position {} in '{value}': '{other}'.",
                    piece.len()
                )));
            }
        };
        let known = schema.sortable.iter().find(|sortable| **sortable == name);
        if known.is_none() || words.next().is_some() {
            return Err(Refusal::new(
                400,
                "RequestBroker--ParseUri",
                format!("Could not find a property named '{name}' on type '{}'.", schema.type_name),
            ));
        }
        order.push((name.to_owned(), descending));
    }
    Ok(order)
}

/// Properties of `microsoft.graph.attachment`; those of the derived types need a cast.
pub(crate) const ATTACHMENT: Schema = Schema {
    type_name: "microsoft.graph.attachment",
    options: &["$select", "$expand", "$top", "$skip", "$count", "$filter", "$orderby"],
    properties: &[
        "id",
        "name",
        "contentType",
        "size",
        "isInline",
        "lastModifiedDateTime",
        "microsoft.graph.fileAttachment/contentId",
        "microsoft.graph.fileAttachment/contentBytes",
        "microsoft.graph.fileAttachment/contentLocation",
    ],
    filterable: &[
        ("id", Edm::Text),
        ("name", Edm::Text),
        ("contentType", Edm::Text),
        ("isInline", Edm::Bool),
        ("size", Edm::Number),
    ],
    sortable: &["name", "size", "lastModifiedDateTime"],
    expandable: &["microsoft.graph.itemattachment/item"],
    max_top: 1000,
};

const EXTENDED_PROPERTY: Schema = Schema {
    type_name: "microsoft.graph.singleValueLegacyExtendedProperty",
    options: &[],
    properties: &["id", "value"],
    filterable: &[("id", Edm::Text)],
    sortable: &[],
    expandable: &[],
    max_top: 1,
};

fn expand(value: &str, schema: &Schema) -> Result<Vec<Expand>, Refusal> {
    let mut found = Vec::new();
    for piece in split_outside(value, ',') {
        let piece = piece.trim();
        let (path, inner) = match piece.split_once('(') {
            Some((path, rest)) => {
                let inner = rest.strip_suffix(')').ok_or_else(|| {
                    Refusal::bad_request(format!("Syntax error: unbalanced parentheses in '{value}'."))
                })?;
                (path, Some(inner))
            }
            None => (piece, None),
        };
        let Some(known) = schema.expandable.iter().find(|expandable| expandable.eq_ignore_ascii_case(path)) else {
            return Err(Refusal::bad_request(format!(
                "Parsing OData Select and Expand failed: Could not find a property named '{path}' on type '{}'.",
                schema.type_name
            )));
        };
        let mut one = Expand { path: (*known).to_owned(), select: None, filter: None };
        let inner_schema = match *known {
            "singleValueExtendedProperties" => &EXTENDED_PROPERTY,
            _ => &ATTACHMENT,
        };
        for option in split_outside(inner.unwrap_or_default(), ';') {
            match option.split_once('=') {
                Some(("$select", value)) => one.select = Some(select(value, inner_schema)?),
                Some(("$filter", value)) if *known == "singleValueExtendedProperties" => {
                    one.filter = Some(Parser::parse(value, inner_schema.filterable)?);
                }
                None if option.trim().is_empty() => {}
                _ => {
                    return Err(Refusal::bad_request(format!(
                        "Parsing OData Select and Expand failed: '{option}' is not supported."
                    )));
                }
            }
        }
        if *known == "singleValueExtendedProperties" && one.filter.is_none() {
            return Err(Refusal::bad_request("The $expand of singleValueExtendedProperties requires a $filter on id."));
        }
        found.push(one);
    }
    Ok(found)
}

/// Splits at a separator that stands outside parentheses and quotes.
fn split_outside(text: &str, separator: char) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut depth, mut quoted, mut start) = (0, false, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '\'' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            _ if letter == separator && depth == 0 && !quoted => {
                pieces.push(&text[start..at]);
                start = at + letter.len_utf8();
            }
            _ => {}
        }
    }
    pieces.push(&text[start..]);
    pieces
}

impl Expr {
    /// The properties in order of appearance, each once.
    fn properties(&self, out: &mut Vec<String>) {
        let mut add = |name: &String| {
            if !out.contains(name) {
                out.push(name.clone());
            }
        };
        match self {
            Expr::And(left, right) | Expr::Or(left, right) => {
                left.properties(out);
                right.properties(out);
            }
            Expr::Not(inner) => inner.properties(out),
            Expr::Compare(name, ..) | Expr::Call(_, name, _) | Expr::Any(name, _) => add(name),
        }
    }

    /// Whether an item passes; `value` gives the values of a property (several for a collection).
    pub(crate) fn matches(&self, value: &dyn Fn(&str) -> Vec<Literal>) -> bool {
        match self {
            Expr::And(left, right) => left.matches(value) && right.matches(value),
            Expr::Or(left, right) => left.matches(value) || right.matches(value),
            Expr::Not(inner) => !inner.matches(value),
            Expr::Compare(name, op, literal) => value(name).iter().any(|found| {
                let order = compare(found, literal);
                match op {
                    Op::Eq => order.is_eq(),
                    Op::Ne => order.is_ne(),
                    // Nothing is greater or less than null.
                    _ if *found == Literal::Null => false,
                    Op::Gt => order.is_gt(),
                    Op::Ge => order.is_ge(),
                    Op::Lt => order.is_lt(),
                    Op::Le => order.is_le(),
                }
            }),
            Expr::Call(function, name, text) => value(name).iter().any(|found| {
                let Literal::Text(found) = found else {
                    return false;
                };
                let (found, text) = (found.to_lowercase(), text.to_lowercase());
                match function {
                    Function::Contains => found.contains(&text),
                    Function::StartsWith => found.starts_with(&text),
                    Function::EndsWith => found.ends_with(&text),
                }
            }),
            Expr::Any(name, inner) => value(name).into_iter().any(|entry| inner.matches(&|_| vec![entry.clone()])),
        }
    }

    /// Bounds in microseconds on a time property, as far as they follow from the outermost `and`s.
    pub(crate) fn time_bounds(&self, property: &str) -> (Option<i64>, Option<i64>) {
        match self {
            Expr::And(left, right) => {
                let (left, right) = (left.time_bounds(property), right.time_bounds(property));
                let later = |a: Option<i64>, b: Option<i64>| a.max(b);
                let earlier = |a: Option<i64>, b: Option<i64>| match (a, b) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (one, other) => one.or(other),
                };
                (later(left.0, right.0), earlier(left.1, right.1))
            }
            Expr::Compare(name, op, Literal::Time(time)) if name == property => match op {
                Op::Eq => (Some(*time), Some(*time)),
                Op::Gt | Op::Ge => (Some(*time), None),
                Op::Lt | Op::Le => (None, Some(*time)),
                Op::Ne => (None, None),
            },
            _ => (None, None),
        }
    }

    /// The text that a property must equal, for `id eq '...'`.
    pub(crate) fn equal_texts(&self, out: &mut Vec<String>) {
        match self {
            Expr::And(left, right) | Expr::Or(left, right) => {
                left.equal_texts(out);
                right.equal_texts(out);
            }
            Expr::Compare(_, Op::Eq, Literal::Text(text)) => out.push(text.clone()),
            _ => {}
        }
    }
}

/// Exchange compares text without regard to case.
fn compare(left: &Literal, right: &Literal) -> std::cmp::Ordering {
    match (left, right) {
        (Literal::Text(left), Literal::Text(right)) => left.to_lowercase().cmp(&right.to_lowercase()),
        _ => left.cmp(right),
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Open,
    Close,
    Comma,
    Colon,
}

struct Parser<'a> {
    tokens: Vec<Token>,
    at: usize,
    source: &'a str,
    types: &'a [(&'static str, Edm)],
    /// The variable of the `any` that is being read.
    variable: Option<String>,
}

/// A filter deeper than this is refused, here and by the service's node limit.
const MAX_NESTING: usize = 60;

impl<'a> Parser<'a> {
    fn parse(source: &'a str, types: &'a [(&'static str, Edm)]) -> Result<Expr, Refusal> {
        let mut parser = Parser { tokens: Vec::new(), at: 0, source, types, variable: None };
        parser.tokenise()?;
        let expression = parser.or(0)?;
        if parser.at < parser.tokens.len() {
            return Err(parser.syntax());
        }
        Ok(expression)
    }

    fn syntax(&self) -> Refusal {
        Refusal::bad_request(format!("Syntax error at position {} in '{}'.", self.at, self.source))
    }

    fn tokenise(&mut self) -> Result<(), Refusal> {
        let mut letters = self.source.chars().peekable();
        while let Some(&letter) = letters.peek() {
            match letter {
                ' ' => {
                    letters.next();
                }
                '(' | ')' | ',' => {
                    letters.next();
                    self.tokens.push(match letter {
                        '(' => Token::Open,
                        ')' => Token::Close,
                        _ => Token::Comma,
                    });
                }
                '\'' => {
                    letters.next();
                    let mut text = String::new();
                    loop {
                        match letters.next() {
                            Some('\'') if letters.peek() == Some(&'\'') => {
                                letters.next();
                                text.push('\'');
                            }
                            Some('\'') => break,
                            Some(letter) => text.push(letter),
                            None => {
                                return Err(Refusal::bad_request(format!(
                                    "There is an unterminated string literal at position {} in '{}'.",
                                    self.source.len(),
                                    self.source
                                )));
                            }
                        }
                    }
                    self.tokens.push(Token::Text(text));
                }
                _ => {
                    let mut word = String::new();
                    while let Some(&letter) = letters.peek() {
                        if matches!(letter, ' ' | '(' | ')' | ',' | '\'') {
                            break;
                        }
                        letters.next();
                        // `p:p eq` of a lambda; in a time the colon stands between digits.
                        if letter == ':' && !word.starts_with(|first: char| first.is_ascii_digit()) {
                            break;
                        }
                        word.push(letter);
                        if letters.peek() == Some(&':') && !word.starts_with(|first: char| first.is_ascii_digit()) {
                            self.tokens.push(Token::Word(std::mem::take(&mut word)));
                            self.tokens.push(Token::Colon);
                        }
                    }
                    if !word.is_empty() {
                        self.tokens.push(Token::Word(word));
                    }
                }
            }
        }
        Ok(())
    }

    fn peek_word(&self, expected: &str) -> bool {
        matches!(self.tokens.get(self.at), Some(Token::Word(word)) if word == expected)
    }

    fn expect(&mut self, expected: Token) -> Result<(), Refusal> {
        if self.tokens.get(self.at) == Some(&expected) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.syntax())
        }
    }

    fn next(&mut self) -> Result<Token, Refusal> {
        let token = self.tokens.get(self.at).cloned().ok_or_else(|| self.syntax())?;
        self.at += 1;
        Ok(token)
    }

    fn or(&mut self, depth: usize) -> Result<Expr, Refusal> {
        let mut left = self.and(depth)?;
        while self.peek_word("or") {
            self.at += 1;
            left = Expr::Or(Box::new(left), Box::new(self.and(depth)?));
        }
        Ok(left)
    }

    fn and(&mut self, depth: usize) -> Result<Expr, Refusal> {
        let mut left = self.unary(depth)?;
        while self.peek_word("and") {
            self.at += 1;
            left = Expr::And(Box::new(left), Box::new(self.unary(depth)?));
        }
        Ok(left)
    }

    fn unary(&mut self, depth: usize) -> Result<Expr, Refusal> {
        if depth > MAX_NESTING {
            return Err(Refusal::bad_request(
                "The query specified in the URI is not valid. The node count limit was exceeded.",
            ));
        }
        if self.peek_word("not") {
            self.at += 1;
            return Ok(Expr::Not(Box::new(self.unary(depth + 1)?)));
        }
        match self.next()? {
            Token::Open => {
                let inner = self.or(depth + 1)?;
                self.expect(Token::Close)?;
                Ok(inner)
            }
            Token::Word(word) => self.after_word(word, depth),
            _ => Err(self.syntax()),
        }
    }

    fn after_word(&mut self, word: String, depth: usize) -> Result<Expr, Refusal> {
        let called = self.tokens.get(self.at) == Some(&Token::Open);
        let function = match word.to_ascii_lowercase().as_str() {
            "contains" => Some(Function::Contains),
            "startswith" => Some(Function::StartsWith),
            "endswith" => Some(Function::EndsWith),
            _ => None,
        };
        match (called, function) {
            (true, Some(function)) => {
                self.at += 1;
                let Token::Word(property) = self.next()? else {
                    return Err(self.syntax());
                };
                let (property, edm) = self.property(&property)?;
                self.expect(Token::Comma)?;
                let Token::Text(text) = self.next()? else {
                    return Err(self.syntax());
                };
                self.expect(Token::Close)?;
                if edm != Edm::Text {
                    return Err(Refusal::bad_request(format!(
                        "No function signature for the function with name '{}' matches the specified arguments.",
                        word
                    )));
                }
                Ok(Expr::Call(function, property, text))
            }
            (true, None) => {
                let collection = word.strip_suffix("/any").ok_or_else(|| self.syntax())?.to_owned();
                let (collection, edm) = self.property(&collection)?;
                if edm != Edm::Texts || self.variable.is_some() {
                    return Err(Refusal::bad_request("The filter's 'any' is not supported on this property."));
                }
                self.at += 1;
                let Token::Word(variable) = self.next()? else {
                    return Err(self.syntax());
                };
                self.expect(Token::Colon)?;
                self.variable = Some(variable);
                let inner = self.or(depth + 1)?;
                self.variable = None;
                self.expect(Token::Close)?;
                Ok(Expr::Any(collection, Box::new(inner)))
            }
            (false, _) => {
                let (property, edm) = self.property(&word)?;
                let op = match self.next()? {
                    Token::Word(op) => match op.as_str() {
                        "eq" => Op::Eq,
                        "ne" => Op::Ne,
                        "gt" => Op::Gt,
                        "ge" => Op::Ge,
                        "lt" => Op::Lt,
                        "le" => Op::Le,
                        _ => return Err(self.syntax()),
                    },
                    _ => return Err(self.syntax()),
                };
                let literal = match self.next()? {
                    Token::Text(text) => Literal::Text(text),
                    Token::Word(word) => self.literal(&word)?,
                    _ => return Err(self.syntax()),
                };
                let found = match &literal {
                    Literal::Null => edm,
                    Literal::Bool(_) => Edm::Bool,
                    Literal::Number(_) => Edm::Number,
                    Literal::Time(_) => Edm::Time,
                    Literal::Text(_) => Edm::Text,
                };
                if found != edm {
                    return Err(Refusal::bad_request(format!(
                        "A binary operator with incompatible types was detected. Found operand types '{}' and '{}' for operator kind '{op:?}'.",
                        edm.name(),
                        found.name()
                    )));
                }
                Ok(Expr::Compare(property, op, literal))
            }
        }
    }

    fn property(&self, name: &str) -> Result<(String, Edm), Refusal> {
        if self.variable.as_deref() == Some(name) {
            return Ok(("$it".into(), Edm::Text));
        }
        self.types.iter().find(|(known, _)| *known == name).map(|(known, edm)| ((*known).to_owned(), *edm)).ok_or_else(
            || {
                Refusal::bad_request(format!(
                    "Could not find a property named '{name}' in the filter, or it cannot be filtered on."
                ))
            },
        )
    }

    fn literal(&self, word: &str) -> Result<Literal, Refusal> {
        match word {
            "true" => return Ok(Literal::Bool(true)),
            "false" => return Ok(Literal::Bool(false)),
            "null" => return Ok(Literal::Null),
            _ => {}
        }
        if let Ok(number) = word.parse() {
            return Ok(Literal::Number(number));
        }
        // A date alone is a time at midnight in UTC.
        let text = if word.len() == 10 { format!("{word}T00:00:00Z") } else { word.to_owned() };
        text.parse::<jiff::Timestamp>().map(|time| Literal::Time(time.as_microsecond())).map_err(|_| self.syntax())
    }
}

/// A `$select` as a set, with `id` always in it.
pub(crate) fn selected(select: Option<&Vec<String>>, defaults: &[&str]) -> BTreeSet<String> {
    let mut set: BTreeSet<String> = match select {
        Some(names) => names.iter().cloned().collect(),
        None => defaults.iter().map(|name| (*name).to_owned()).collect(),
    };
    set.insert("id".to_owned());
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPES: &[(&str, Edm)] = &[
        ("receivedDateTime", Edm::Time),
        ("isRead", Edm::Bool),
        ("subject", Edm::Text),
        ("proxyAddresses", Edm::Texts),
    ];

    #[test]
    fn filters_are_read_and_applied() {
        let passes = |filter: &str| {
            Parser::parse(filter, TYPES).unwrap().matches(&|name| match name {
                "receivedDateTime" => vec![Literal::Time(1_000_000)],
                "isRead" => vec![Literal::Bool(false)],
                "subject" => vec![Literal::Text("It's".into())],
                _ => vec![Literal::Text("a".into()), Literal::Text("b".into())],
            })
        };
        assert!(passes("receivedDateTime ge 1970-01-01T00:00:01Z and isRead eq false"));
        assert!(!passes("receivedDateTime gt 1970-01-01T00:00:01Z"));
        assert!(passes("(subject eq 'It''s')"));
        assert!(passes("contains(subject, 't''s') or isRead eq true"));
        assert!(passes("proxyAddresses/any(p:p eq 'b')"));
        assert!(passes("proxyAddresses/any(p: p eq 'b') and not (isRead eq true)"));
        assert!(!passes("proxyAddresses/any(p:p eq 'c')"));
    }

    #[test]
    fn bad_filters_are_refused() {
        for filter in [
            "receivedDateTime ge '2026-01-01T00:00:00Z'",
            "isRead eq 'false'",
            "colour eq 'red'",
            "subject eq 'open",
            "subject like 'x'",
            "(isRead eq true",
            "",
        ] {
            assert!(Parser::parse(filter, TYPES).is_err(), "{filter}");
        }
    }
}
