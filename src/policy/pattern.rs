//! Whole-value matching, segment by segment. There is no way to write a pattern that fits a part of a value.

use std::fmt;

use thiserror::Error;

/// What stands between segments: of paths and refs, of `sub`s, of workflow references.
const SEPARATORS: [char; 3] = ['/', ':', '@'];

/// What regular expressions and templates are made of. Such a pattern was meant for another matcher (threats C19, C20).
const FOREIGN: [char; 12] = ['^', '$', '|', '(', ')', '[', ']', '{', '}', '?', '\\', '%'];

/// A pattern: segments between `/`, `:` and `@`, of which some are `*`, each standing for exactly one non-empty segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

/// A text that is no pattern.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PatternError {
    /// It has no star.
    #[error("has no `*`, expected at least one segment that is `*`")]
    NoStar,
    /// Nothing but stars: true of every value of that many segments.
    #[error("fits every value, expected at least one literal segment")]
    Everything,
    /// `acme*`: would fit `acme-evil` (threat C02).
    #[error(
        "has `*` beside other characters in one segment, which would admit strangers with a similar name"
    )]
    StarInText,
    /// `**`: would cross segments.
    #[error("has `**`, expected `*` for exactly one segment")]
    DoubleStar,
    /// `*/deploy`: whoever owns a repository called so.
    #[error("begins with `*`, which would admit every owner")]
    AnyOwner,
    /// `//`: nothing can stand in an empty segment.
    #[error("has an empty segment")]
    EmptySegment,
    /// A character of regular expressions or templates.
    #[error(
        "has `{0}`, which means nothing here: a pattern is no regular expression and no template"
    )]
    Foreign(char),
}

impl Pattern {
    /// The pattern that `text` writes.
    ///
    /// # Errors
    /// It could fit what its author did not mean.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if let Some(foreign) = text.chars().find(|c| FOREIGN.contains(c) || c.is_control()) {
            return Err(PatternError::Foreign(foreign));
        }
        let segments: Vec<&str> = text.split(SEPARATORS).collect();
        if segments.iter().any(|segment| segment.contains("**")) {
            return Err(PatternError::DoubleStar);
        }
        if segments.iter().any(|segment| segment.contains('*') && *segment != "*") {
            return Err(PatternError::StarInText);
        }
        if segments.iter().all(|segment| *segment == "*") {
            return Err(PatternError::Everything);
        }
        if segments.iter().any(|segment| segment.is_empty()) {
            return Err(PatternError::EmptySegment);
        }
        if segments.first() == Some(&"*") {
            return Err(PatternError::AnyOwner);
        }
        if !segments.contains(&"*") {
            return Err(PatternError::NoStar);
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether the whole of `value` fits. With `folded`, ASCII letters are compared without their case.
    #[must_use]
    pub fn fits(&self, value: &str, folded: bool) -> bool {
        let mut wanted = self.0.split_inclusive(SEPARATORS);
        let mut given = value.split_inclusive(SEPARATORS);
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return true,
                (Some(want), Some(got)) if segment_fits(want, got, folded) => {}
                _ => return false,
            }
        }
    }
}

/// Compares two segments, each with the separator that ends it.
fn segment_fits(want: &str, got: &str, folded: bool) -> bool {
    if let Some(separator) = want.strip_prefix('*') {
        return got.strip_suffix(SEPARATORS).unwrap_or(got).len().checked_add(separator.len())
            == Some(got.len())
            && got.ends_with(separator)
            && got.len() > separator.len();
    }
    want == got || (folded && want.eq_ignore_ascii_case(got))
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, value: &str) -> bool {
        Pattern::parse(pattern).unwrap().fits(value, false)
    }

    #[test]
    fn c02_a_star_stays_inside_its_segment() {
        assert!(fits("repo:acme/*", "repo:acme/site"));
        assert!(!fits("repo:acme/*", "repo:acme/site/extra"));
        assert!(!fits("repo:acme/*", "repo:acme/site:extra"));
        assert!(!fits("repo:acme/*", "repo:acme/site@extra"));
        assert!(!fits("repo:acme/*", "repo:acme/"));
        assert!(!fits("repo:acme/*", "evil-repo:acme/site"));
        assert!(!fits("repo:acme/*", "repo:acme-evil/site"));
        assert!(!fits("repo:acme/*", "repo/acme/site"));
        assert!(!fits("a/*/c", "a/b"));
        assert!(!fits("a/*/c", "a/b/"));
        assert!(!fits("a/*/c", "a//c"));
        assert!(!fits("a/*/c", "a/b:c"));
        assert!(fits("a/*/c", "a/b/c"));
        assert!(!fits("a/*", "a"));
        assert!(!fits("a/*", ""));
        assert!(!fits("a/*", "a/b/"));
    }

    #[test]
    fn c09_case_is_folded_only_where_asked() {
        let pattern = Pattern::parse("Acme/*").unwrap();
        assert!(pattern.fits("aCME/x", true));
        assert!(!pattern.fits("aCME/x", false));
        assert!(!pattern.fits("äcme/x", true));
    }

    #[test]
    fn c02_c19_what_could_fit_a_stranger_is_no_pattern() {
        let error = |text| Pattern::parse(text).unwrap_err();
        assert_eq!(error("repo:acme*"), PatternError::StarInText);
        assert_eq!(error("repo:OWNER*/REPO*:ref"), PatternError::StarInText);
        assert_eq!(error("*"), PatternError::Everything);
        assert_eq!(error("*/*"), PatternError::Everything);
        assert_eq!(error("acme/**"), PatternError::DoubleStar);
        assert_eq!(error("*/deploy"), PatternError::AnyOwner);
        assert_eq!(error("acme//*"), PatternError::EmptySegment);
        assert_eq!(error("acme/site"), PatternError::NoStar);
        assert_eq!(error("acme/(a|b)/*"), PatternError::Foreign('('));
        assert_eq!(error("^acme/*"), PatternError::Foreign('^'));
        assert_eq!(error("acme/{{ repository }}/*"), PatternError::Foreign('{'));
        assert_eq!(error("acme/*\n"), PatternError::Foreign('\n'));
    }
}
