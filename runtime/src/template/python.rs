//! What templates take from Python: how values print, and the methods of strings and dicts that chat templates call.

use minijinja::value::{Kwargs, Rest, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

/// `str(value)`, with nothing for what is undefined.
pub(super) fn print(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(String::new()),
        ValueKind::String => Ok(value.as_str().unwrap_or_default().to_owned()),
        _ => repr(value, 0),
    }
}

fn repr(value: &Value, depth: usize) -> Result<String, Error> {
    if depth > 100 {
        return Err(Error::new(ErrorKind::InvalidOperation, "the value is nested too deeply to be printed"));
    }
    let list = |pieces: Result<Vec<String>, Error>, open: &str, close: &str| Ok(format!("{open}{}{close}", pieces?.join(", ")));
    match value.kind() {
        ValueKind::None => Ok("None".to_owned()),
        ValueKind::Bool => Ok(if value.is_true() { "True" } else { "False" }.to_owned()),
        ValueKind::Number if !value.is_integer() => Ok(float(f64::try_from(value.clone())?)),
        ValueKind::String => Ok(quoted(value.as_str().unwrap_or_default())),
        ValueKind::Seq => list(value.try_iter()?.map(|item| repr(&item, depth + 1)).collect(), "[", "]"),
        ValueKind::Map => {
            let pair = |key: Value| Ok(format!("{}: {}", repr(&key, depth + 1)?, repr(&value.get_item(&key)?, depth + 1)?));
            list(value.try_iter()?.map(pair).collect(), "{", "}")
        }
        _ => Ok(value.to_string()),
    }
}

/// `repr` of a float: the shortest digits that read back as the same number.
pub(super) fn float(x: f64) -> String {
    let text = format!("{x:?}");
    match text.split_once('e') {
        None => text.to_ascii_lowercase(),
        Some((digits, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
            format!("{digits}e{sign}{exponent:0>2}")
        }
    }
}

fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if c < ' ' || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// Jinja's test: whether Python could iterate over it.
pub(super) fn is_iterable(value: &Value) -> bool {
    value.kind() != ValueKind::None && value.try_iter().is_ok()
}

/// A method that minijinja does not have itself.
pub(super) fn method(_: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => string_method(value.as_str().unwrap_or_default(), name, args),
        ValueKind::Map => map_method(value, name, args),
        ValueKind::Seq => match name {
            "index" => {
                let (wanted,): (Value,) = from_args(args)?;
                let at = value.try_iter()?.position(|item| item == wanted);
                at.map(Value::from).ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "index: the value is not in the list"))
            }
            "count" => {
                let (wanted,): (Value,) = from_args(args)?;
                Ok(Value::from(value.try_iter()?.filter(|item| *item == wanted).count()))
            }
            _ => Err(ErrorKind::UnknownMethod.into()),
        },
        _ => Err(ErrorKind::UnknownMethod.into()),
    }
}

fn map_method(map: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let known = |key: &Value| Ok::<_, Error>(Some(map.get_item(key)?).filter(|v| !v.is_undefined()));
    match name {
        "get" => {
            let (key, or): (Value, Option<Value>) = from_args(args)?;
            Ok(known(&key)?.or(or).unwrap_or(Value::from(())))
        }
        "items" | "keys" | "values" => {
            let () = from_args(args)?;
            let one = |key: Value| match name {
                "keys" => Ok(key),
                "values" => map.get_item(&key),
                _ => Ok(Value::from(vec![key.clone(), map.get_item(&key)?])),
            };
            map.try_iter()?.map(one).collect::<Result<Vec<Value>, Error>>().map(Value::from)
        }
        _ => Err(ErrorKind::UnknownMethod.into()),
    }
}

fn string_method(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    Ok(match name {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<String>,) = from_args(args)?;
            let drop = |c: char| chars.as_ref().map_or(c.is_whitespace(), |chars| chars.contains(c));
            let text = if name == "rstrip" { text } else { text.trim_start_matches(drop) };
            Value::from(if name == "lstrip" { text } else { text.trim_end_matches(drop) })
        }
        "startswith" | "endswith" => {
            let (wanted,): (Value,) = from_args(args)?;
            let one = |part: &str| if name == "startswith" { text.starts_with(part) } else { text.ends_with(part) };
            match wanted.as_str() {
                Some(part) => Value::from(one(part)),
                None => Value::from(wanted.try_iter()?.any(|part| part.as_str().is_some_and(one))),
            }
        }
        "removeprefix" | "removesuffix" => {
            let (part,): (&str,) = from_args(args)?;
            let rest = if name == "removeprefix" { text.strip_prefix(part) } else { text.strip_suffix(part) };
            Value::from(rest.unwrap_or(text))
        }
        "split" | "rsplit" => split(text, name == "rsplit", args)?,
        "splitlines" => {
            let () = from_args(args)?;
            Value::from(text.replace("\r\n", "\n").replace('\r', "\n").split_terminator('\n').map(Value::from).collect::<Vec<_>>())
        }
        "replace" => {
            let (from, to, count): (&str, &str, Option<usize>) = from_args(args)?;
            Value::from(count.map_or_else(|| text.replace(from, to), |count| text.replacen(from, to, count)))
        }
        "find" | "count" => {
            let (part,): (&str,) = from_args(args)?;
            match name {
                "count" => Value::from(text.matches(part).count()),
                _ => Value::from(text.find(part).map_or(-1, |at| text[..at].chars().count() as i64)),
            }
        }
        "join" => {
            let (parts,): (Vec<String>,) = from_args(args)?;
            Value::from(parts.join(text))
        }
        "upper" | "lower" | "title" | "capitalize" | "isdigit" | "isalpha" | "isspace" | "isupper" | "islower" => {
            let () = from_args(args)?;
            let all = |test: fn(char) -> bool| Value::from(!text.is_empty() && text.chars().all(test));
            match name {
                "upper" => Value::from(text.to_uppercase()),
                "lower" => Value::from(text.to_lowercase()),
                "title" => Value::from(capitals(text, |before| before.is_some_and(char::is_alphabetic))),
                "capitalize" => Value::from(capitals(text, |before| before.is_some())),
                "isdigit" => all(char::is_numeric),
                "isalpha" => all(char::is_alphabetic),
                "isspace" => all(char::is_whitespace),
                "isupper" => Value::from(text.to_uppercase() == text && text.to_lowercase() != text),
                _ => Value::from(text.to_lowercase() == text && text.to_uppercase() != text),
            }
        }
        _ => return Err(ErrorKind::UnknownMethod.into()),
    })
}

/// Upper case where no word runs on, by the character before, and lower case elsewhere.
fn capitals(text: &str, runs_on: impl Fn(Option<char>) -> bool) -> String {
    let mut before = None;
    let mut out = String::new();
    for c in text.chars() {
        if runs_on(before) {
            out.extend(c.to_lowercase())
        } else {
            out.extend(c.to_uppercase())
        }
        before = Some(c);
    }
    out
}

/// `split(sep=None, maxsplit=-1)`, and the same from the right.
fn split(text: &str, from_right: bool, args: &[Value]) -> Result<Value, Error> {
    let (Rest(positional), options): (Rest<Option<Value>>, Kwargs) = from_args(args)?;
    let mut positional = positional.into_iter();
    let given = |place: Option<Option<Value>>, name: &str| match place.flatten() {
        Some(value) => Ok(Some(value).filter(|v| !v.is_none())),
        None => options.get::<Option<Value>>(name),
    };
    let separator = given(positional.next(), "sep")?;
    let limit = given(positional.next(), "maxsplit")?.map(i64::try_from).transpose()?;
    options.assert_all_used()?;
    let limit = limit.and_then(|n| usize::try_from(n).ok()).map_or(usize::MAX, |n| n.saturating_add(1));
    let mut parts: Vec<&str> = match (separator.as_ref().and_then(|s| s.as_str()), from_right) {
        (Some(""), _) => return Err(Error::new(ErrorKind::InvalidOperation, "split: empty separator")),
        (Some(sep), false) => text.splitn(limit, sep).collect(),
        (Some(sep), true) => text.rsplitn(limit, sep).collect(),
        (None, _) => blanks(text, limit, from_right),
    };
    if from_right {
        parts.reverse();
    }
    Ok(Value::from(parts.into_iter().map(Value::from).collect::<Vec<_>>()))
}

/// Words between blanks, at most `limit`; the last one then keeps its blanks on the far side.
fn blanks(text: &str, limit: usize, from_right: bool) -> Vec<&str> {
    let near = |text: &str| if from_right { text.trim_end().len() } else { text.len() - text.trim_start().len() };
    let skip = |text| if from_right { &text[..near(text)] } else { &text[near(text)..] };
    let (mut rest, mut parts): (&str, Vec<&str>) = (skip(text), Vec::new());
    while !rest.is_empty() {
        let cut = if from_right { rest.rfind(char::is_whitespace) } else { rest.find(char::is_whitespace) };
        let Some(at) = cut.filter(|_| parts.len() + 1 < limit) else {
            parts.push(rest);
            break;
        };
        let (left, right) = rest.split_at(at);
        let (part, more) = if from_right { (right.trim_start(), left) } else { (left, right) };
        parts.push(part);
        rest = skip(more);
    }
    parts
}
