//! "Did you mean": the nearest of some known words, by edit distance.

/// The nearest of `known` to `word`, if one is near enough to be meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A long word is no slip of the fingers; comparing it would only cost time.
    if word.len() > 64 {
        return None;
    }
    let known: Vec<&str> = known.into_iter().collect();
    // Whoever stopped typing meant what goes on from there.
    let mut longer = known.iter().filter(|candidate| word.len() > 2 && candidate.starts_with(word));
    if let (Some(only), None) = (longer.next(), longer.next()) {
        return Some(only);
    }
    let length = word.chars().count();
    let allowed = length.max(3) / 3;
    // Words of another length are another word, and comparing thousands of names costs.
    let similar = known.into_iter().filter(|candidate: &&str| candidate.chars().count().abs_diff(length) <= allowed);
    let distances = similar.map(|candidate| (distance(word, candidate), candidate));
    distances.filter(|(distance, _)| *distance <= allowed).min().map(|(_, candidate)| candidate)
}

/// The hint that names it.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, known).map(|nearest| format!("did you mean `{nearest}`?"))
}

/// Insertions, deletions, replacements and swaps of neighbours that make `a` of `b`.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_lowercase().replace('-', "_").chars().collect();
    let b: Vec<char> = b.to_lowercase().replace('-', "_").chars().collect();
    let width = b.len() + 1;
    let mut table: Vec<usize> = vec![0; (a.len() + 1) * width];
    let at = |table: &[usize], i: usize, j: usize| table.get(i * width + j).copied().unwrap_or(usize::MAX / 2);
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            let cost = if i == 0 || j == 0 {
                i + j
            } else {
                let same = usize::from(a.get(i - 1) != b.get(j - 1));
                let mut best =
                    (at(&table, i - 1, j) + 1).min(at(&table, i, j - 1) + 1).min(at(&table, i - 1, j - 1) + same);
                if i > 1 && j > 1 && a.get(i - 1) == b.get(j - 2) && a.get(i - 2) == b.get(j - 1) {
                    best = best.min(at(&table, i - 2, j - 2) + 1);
                }
                best
            };
            if let Some(cell) = table.get_mut(i * width + j) {
                *cell = cost;
            }
        }
    }
    table.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let known = ["port", "healthcheck", "working_dir", "environment"];
        let cases = [
            ("prot", Some("port")),
            ("health_check", Some("healthcheck")),
            ("working-dir", Some("working_dir")),
            ("enviroment", Some("environment")),
            ("Port", Some("port")),
            ("volumes", None),
        ];
        for (word, expected) in cases {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }

    proptest! {
        #[test]
        fn the_distance_of_any_two_words_is_symmetric_and_zero_only_for_equals(a in any::<String>(), b in any::<String>()) {
            assert_eq!(distance(&a, &b), distance(&b, &a));
            assert_eq!(distance(&a, &a), 0);
            assert!(distance(&a, &b) <= a.to_lowercase().chars().count().max(b.to_lowercase().chars().count()));
        }
    }
}
