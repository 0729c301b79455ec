//! Which instances people mean: names, globs and presets. Used by every door.

use std::collections::BTreeSet;

use super::spec::Plan;
use crate::config::nearest_name;
use crate::model::{InstanceId, InstanceName};

/// A word that names nothing in the plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no instance or preset is called `{word}`")]
pub struct Unknown {
    /// The word.
    pub word: String,
    /// What to try.
    pub hint: String,
}

/// The instances that `words` mean, in the order of the file; no words mean all.
///
/// # Errors
/// The first word that means nothing.
pub fn select(plan: &Plan, words: &[String]) -> Result<Vec<InstanceId>, Unknown> {
    if words.is_empty() {
        return Ok(plan.ids().collect());
    }
    let mut chosen = BTreeSet::new();
    for word in words {
        let preset = plan.presets.get(word);
        let members: BTreeSet<_> = preset.iter().flat_map(|preset| &preset.instances).collect();
        let is_named = |name: &InstanceName| glob(word, name.as_str()) || members.contains(name);
        let named: Vec<_> = plan.ids().filter(|id| is_named(&plan.spec(*id).name)).collect();
        if named.is_empty() && preset.is_none() {
            return Err(unknown(plan, word));
        }
        chosen.extend(named);
    }
    Ok(plan.ids().filter(|id| chosen.contains(id)).collect())
}

fn unknown(plan: &Plan, word: &str) -> Unknown {
    let names: Vec<&str> =
        plan.ids().map(|id| plan.spec(id).name.as_str()).chain(plan.presets.keys().map(String::as_str)).collect();
    let hint = match nearest_name(word, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if names.len() <= 12 => format!("there are: {}", names.join(", ")),
        None => "laneway status lists them all".to_owned(),
    };
    Unknown { word: word.to_owned(), hint }
}

/// Whether `name` fits `pattern`: `*` is any text, `?` any character.
#[must_use]
pub fn glob(pattern: &str, name: &str) -> bool {
    let mut letters = pattern.chars();
    match letters.next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = letters.as_str();
            (0..=name.len()).filter_map(|at| name.get(at..)).any(|tail| glob(rest, tail))
        }
        Some(letter) => {
            let mut others = name.chars();
            others.next().is_some_and(|other| letter == '?' || letter == other)
                && glob(letters.as_str(), others.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_in_a_shell() {
        let table = [
            ("chat_*", "chat_main", true),
            ("*main", "chat_main", true),
            ("c*_m?in", "chat_main", true),
            ("chat", "chat_main", false),
            ("?", "", false),
            ("*", "", true),
            ("", "a", false),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(glob(pattern, name), expected, "{pattern} {name}");
        }
    }
}
