//! Problems as pictures for a terminal: the line, a caret, the hint. The one file that knows `annotate-snippets`.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::problem::{Problem, Problems, Sources};

/// Nobody mends more at once.
const MAX_SHOWN: usize = 50;

impl Problems {
    /// All problems with excerpts; `colour` for a terminal that wants it.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() }.decor_style(DecorStyle::Ascii);
        let shown = self.iter().take(MAX_SHOWN);
        let mut pictures: Vec<String> =
            shown.map(|problem| renderer.render(&[group(problem, &self.sources)])).collect();
        if self.len() > MAX_SHOWN {
            pictures.push(format!("... and {} more", self.len() - MAX_SHOWN));
        }
        pictures.join("\n\n")
    }
}

fn group<'a>(problem: &'a Problem, sources: &'a Sources) -> Group<'a> {
    let title = match problem.path.as_str() {
        "" => problem.what.clone(),
        path => format!("{path}: {}", problem.what),
    };
    let mut group = Group::with_title(Level::ERROR.primary_title(title));
    if let Some(place) = problem.place {
        let text = sources.text(place);
        let span = visible_span(text, place.start as usize, place.end as usize);
        let snippet = Snippet::source(text).path(problem.file.as_str()).annotation(AnnotationKind::Primary.span(span));
        group = group.element(snippet);
    } else if !problem.file.is_empty() {
        group = group.element(Origin::path(problem.file.as_str()));
    }
    if let Some(hint) = &problem.hint {
        group = group.element(Level::HELP.with_name("hint").message(hint.as_str()));
    }
    group
}

/// A span inside `text`, on character borders, ending in its first line: a whole map underlined hides what is meant.
fn visible_span(text: &str, start: usize, end: usize) -> std::ops::Range<usize> {
    let start = text.floor_char_boundary(start);
    let end = text.floor_char_boundary(end.max(start));
    let line_end = text.get(start..end).and_then(|slice| slice.find('\n')).map_or(end, |length| start + length);
    start..line_end
}
