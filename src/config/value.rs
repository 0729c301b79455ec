//! One scalar to one typed value: texts, booleans, numbers, durations, sizes, names. Pure; a refusal says how it is written right.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::time::Duration;

use crate::model::{InstanceName, Signal};

use super::node::{Node, Scalar, Style, Value};
use super::problem::Fault;

/// The longest duration that means anything here.
const MAX_DURATION: Duration = Duration::from_hours(366 * 24);
/// What YAML 1.1 readers take for a boolean, in lower case.
const BOOLEANS: [&str; 8] = ["true", "false", "yes", "no", "on", "off", "y", "n"];

fn scalar(node: &Node) -> Result<&Scalar, Fault> {
    match &node.value {
        Value::Scalar(scalar) if scalar.style == Style::Broken => Err(Fault::reported()),
        Value::Scalar(scalar) if !node.is_null() => Ok(scalar),
        Value::Scalar(_) | Value::List(_) | Value::Map(_) => {
            Err(Fault::new(format!("must be one value, this is {}", node.kind())))
        }
    }
}

/// A text, however it is written; numbers are taken as they stand.
pub fn text(node: &Node) -> Result<String, Fault> {
    let text = &scalar(node)?.text;
    if text.contains('\0') {
        return Err(Fault::new("holds a NUL character, which no process can be given"));
    }
    Ok(text.clone())
}

/// A text that is not empty.
pub fn filled_text(node: &Node) -> Result<String, Fault> {
    let text = text(node)?;
    if text.trim().is_empty() { Err(Fault::new("is empty")) } else { Ok(text) }
}

/// An argument of a command.
pub fn argument(node: &Node) -> Result<String, Fault> {
    text(node).map_err(|fault| match node.value {
        Value::Scalar(_) if node.is_null() => fault.hint("an empty argument is written \"\""),
        Value::Scalar(_) => fault,
        // `{port}` without quotes is a map to YAML.
        Value::List(_) | Value::Map(_) => fault.hint("a placeholder needs quotes, such as \"{port}\""),
    })
}

/// The value of an environment variable.
pub fn environment_value(node: &Node) -> Result<String, Fault> {
    let scalar = scalar(node)?;
    if scalar.style == Style::Plain && BOOLEANS.contains(&scalar.text.to_ascii_lowercase().as_str()) {
        let what =
            format!("`{}` without quotes is a boolean to some readers of YAML and a text to others", scalar.text);
        return Err(Fault::new(what).hint(format!("write \"{}\"", scalar.text)));
    }
    text(node)
}

/// `true` or `false`.
pub fn boolean(node: &Node) -> Result<bool, Fault> {
    let scalar = scalar(node)?;
    match scalar.text.as_str() {
        "true" if scalar.style != Style::Quoted => Ok(true),
        "false" if scalar.style != Style::Quoted => Ok(false),
        _ => {
            let what = format!("must be true or false, not `{}`", node.shown());
            Err(Fault::new(what).hint("without quotes, in lower case"))
        }
    }
}

/// A whole number from `least` to `most`.
pub fn whole<T: FromStr + PartialOrd + std::fmt::Display>(node: &Node, least: &T, most: &T) -> Result<T, Fault> {
    let scalar = scalar(node)?;
    let text = scalar.text.as_str();
    let wrong = || Fault::new(format!("must be a whole number from {least} to {most}, not `{}`", node.shown()));
    if scalar.style == Style::Quoted {
        return Err(wrong().hint(format!("without quotes: {text}")));
    }
    decimal(text).filter(|number| number >= least && number <= most).ok_or_else(wrong)
}

/// A number in digits alone, without a sign and without zeros before it, which some readers take for octal.
pub fn decimal<T: FromStr>(text: &str) -> Option<T> {
    let is_decimal = text.chars().all(|c| c.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if is_decimal { text.parse().ok() } else { None }
}

/// A port.
pub fn port(node: &Node) -> Result<u16, Fault> {
    whole(node, &1, &u16::MAX)
}

/// A duration such as `500ms`, `5s`, `1m30s`.
pub fn duration(node: &Node) -> Result<Duration, Fault> {
    let text = scalar(node)?.text.as_str();
    let hint = "such as 500ms, 5s, 1m30s or 1h";
    if text.parse::<f64>().is_ok() {
        let shown = node.shown();
        let fault = Fault::new(format!("`{shown}` has no unit"));
        return Err(fault.hint(format!("{shown}s is seconds, {shown}ms is milliseconds")));
    }
    let wrong = |what| Fault::new(format!("`{}` is {what}", node.shown())).hint(hint);
    let duration = humantime::parse_duration(text).map_err(|_| wrong("no duration"))?;
    if duration > MAX_DURATION {
        return Err(wrong("longer than a year"));
    }
    Ok(duration)
}

/// A duration that is not zero.
pub fn positive_duration(node: &Node) -> Result<Duration, Fault> {
    match duration(node)? {
        Duration::ZERO => Err(Fault::new("must be longer than nothing")),
        duration => Ok(duration),
    }
}

/// A size in bytes, with Docker's units: `10m` is 10 MiB.
pub fn size(node: &Node) -> Result<u64, Fault> {
    let text = scalar(node)?.text.to_ascii_lowercase();
    let wrong =
        || Fault::new(format!("`{}` is no size", node.shown())).hint("such as 512k, 10m, 1g, or a number of bytes");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text.get(digits.len()..).unwrap_or("") {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return Err(wrong()),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit()) {
        return Err(wrong());
    }
    digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(wrong)
}

/// A literal address; `localhost` is 127.0.0.1, so that no name lookup decides over isolation.
pub fn host(node: &Node) -> Result<IpAddr, Fault> {
    let text = scalar(node)?.text.as_str();
    if text == "localhost" {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| {
        let what = format!("`{}` is no address", node.shown());
        Fault::new(what).hint("an address in digits, such as 127.0.0.1, 0.0.0.0 or ::1")
    })
}

/// A name of an instance, of a namespace, of a project.
pub fn name(node: &Node) -> Result<InstanceName, Fault> {
    let scalar = scalar(node)?;
    parse_name(&scalar.text).map_err(|fault| match scalar.style {
        Style::Filled => Fault::new(format!("`{}` comes to no name", node.shown())),
        Style::Plain | Style::Quoted | Style::Broken => fault,
    })
}

/// The same from a text.
pub fn parse_name(text: &str) -> Result<InstanceName, Fault> {
    InstanceName::parse(text).map_err(|error| Fault {
        hint: error.nearest.map(|nearest| format!("`{nearest}` would be one")),
        what: error.what,
    })
}

/// A signal by name or number.
pub fn signal(node: &Node) -> Result<Signal, Fault> {
    let text = &scalar(node)?.text;
    let wrong = || Fault::new(format!("`{}` is no signal", node.shown())).hint("such as SIGTERM, SIGINT or SIGQUIT");
    text.parse().map_err(|_| wrong())
}

/// One of some words; the error names the nearest or all.
pub fn one_of<T: Copy>(node: &Node, words: &[(&str, T)]) -> Result<T, Fault> {
    let text = scalar(node)?.text.as_str();
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let known = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        Fault::new(format!("`{}` is none of the words known here", node.shown())).hint(format!("known are {known}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::problem::Place;

    fn plain(text: &str) -> Node {
        let place = Place { file: 0, line: 1, column: 1, start: 0, end: 0 };
        Node { place, value: Value::Scalar(Scalar { text: text.to_owned(), style: Style::Plain }) }
    }

    #[test]
    fn sizes_count_in_1024_as_docker_does() {
        let cases =
            [("10m", 10 << 20), ("512k", 512 << 10), ("1G", 1 << 30), ("1MiB", 1 << 20), ("100", 100), ("7b", 7)];
        for (text, bytes) in cases {
            assert_eq!(size(&plain(text)), Ok(bytes), "{text}");
        }
        for text in ["", "m", "1.5m", "-1", "10x", "99999999999999999999", "18446744073709551615k"] {
            assert!(size(&plain(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_need_a_unit_and_an_end() {
        assert_eq!(duration(&plain("1m30s")), Ok(Duration::from_secs(90)));
        assert_eq!(duration(&plain("500ms")), Ok(Duration::from_millis(500)));
        for (text, hint) in
            [("5", "5s is seconds"), ("1.5", "1.5s is seconds"), ("soon", "such as"), ("900y", "such as")]
        {
            assert!(duration(&plain(text)).unwrap_err().hint.unwrap().contains(hint), "{text}");
        }
        assert!(positive_duration(&plain("0s")).is_err());
    }

    #[test]
    fn ports_are_plain_decimal_numbers() {
        assert_eq!(port(&plain("8000")), Ok(8000));
        for text in ["0", "-1", "65536", "abc", "08000", "8_000", "8000.0", "0x1f40", "+80", "99999999999999999999999"]
        {
            let what = port(&plain(text)).unwrap_err().what;
            assert_eq!(what, format!("must be a whole number from 1 to 65535, not `{text}`"));
        }
    }

    #[test]
    fn hosts_are_literal() {
        assert_eq!(host(&plain("localhost")), Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert_eq!(host(&plain("[::1]")), host(&plain("::1")));
        assert!(host(&plain("example.org")).is_err());
    }
}
