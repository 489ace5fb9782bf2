//! Patterns of LIKE and PATINDEX, and regular expressions.

use regex::{Regex, RegexBuilder};

/// Largest compiled regular expression, in bytes.
const MAX_REGEX: usize = 1 << 20;

/// Compiles a regular expression of bounded size, which matches in any case; `None` if it is none.
pub(crate) fn regex(pattern: &str) -> Option<Regex> {
    RegexBuilder::new(pattern).case_insensitive(true).size_limit(MAX_REGEX).build().ok()
}

/// The place of the first match in characters from 1, or 0.
pub(crate) fn find(regex: &Regex, text: &str) -> i64 {
    regex.find(text).map_or(0, |m| i64::try_from(text[..m.start()].chars().count() + 1).unwrap_or(i64::MAX))
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    /// `%`
    Any,
    /// `_`
    One,
    Char(char),
    /// `[a-z]`, `[^a-z]`
    Set(bool, Vec<(char, char)>),
}

impl Part {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Any => false,
            Self::One => true,
            Self::Char(own) => *own == c,
            Self::Set(negated, ranges) => ranges.iter().any(|(a, b)| (*a..=*b).contains(&c)) != *negated,
        }
    }
}

/// A pattern of LIKE.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pattern {
    parts: Vec<Part>,
}

impl Pattern {
    pub(crate) fn new(pattern: &str, escape: Option<char>) -> Self {
        let chars: Vec<char> = pattern.chars().collect();
        let mut parts = Vec::new();
        let mut at = 0;
        while at < chars.len() {
            let (part, next) = match chars[at] {
                c if Some(c) == escape && at + 1 < chars.len() => (Part::Char(chars[at + 1]), at + 2),
                '%' => (Part::Any, at + 1),
                '_' => (Part::One, at + 1),
                '[' => set(&chars, at).unwrap_or((Part::Char('['), at + 1)),
                c => (Part::Char(c), at + 1),
            };
            if !(part == Part::Any && parts.last() == Some(&Part::Any)) {
                parts.push(part);
            }
            at = next;
        }
        Self { parts }
    }

    /// Whether the whole text matches. It goes back to the last `%` only, so the time is at most the product of both lengths.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let chars: Vec<char> = text.chars().collect();
        let (mut at, mut part) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        while at < chars.len() {
            match self.parts.get(part) {
                Some(Part::Any) => {
                    retry = Some((at, part + 1));
                    part += 1;
                }
                Some(p) if p.takes(chars[at]) => {
                    at += 1;
                    part += 1;
                }
                _ => match &mut retry {
                    Some((from, after)) => {
                        *from += 1;
                        at = *from;
                        part = *after;
                    }
                    None => return false,
                },
            }
        }
        self.parts[part..].iter().all(|p| *p == Part::Any)
    }

    /// The place of the first match, in characters from 1, or 0. Without a `%` at the start it matches at the start only.
    pub(crate) fn find(&self, text: &str) -> i64 {
        let inner = match self.parts.split_first() {
            Some((Part::Any, rest)) if !rest.is_empty() => rest,
            _ => return i64::from(self.matches(text)),
        };
        let inner = Self { parts: inner.to_vec() };
        let mut rest = text;
        let mut place = 1;
        loop {
            if inner.matches(rest) {
                return place;
            }
            let mut chars = rest.chars();
            if chars.next().is_none() {
                return 0;
            }
            rest = chars.as_str();
            place += 1;
        }
    }
}

/// The set that starts at a bracket, and where it ends.
fn set(chars: &[char], from: usize) -> Option<(Part, usize)> {
    let mut at = from + 1;
    let negated = chars.get(at) == Some(&'^');
    at += usize::from(negated);
    let mut ranges = Vec::new();
    let first = at;
    loop {
        let c = *chars.get(at)?;
        if c == ']' && at > first {
            return Some((Part::Set(negated, ranges), at + 1));
        }
        match (chars.get(at + 1), chars.get(at + 2)) {
            (Some('-'), Some(end)) if *end != ']' => {
                ranges.push((c, *end));
                at += 3;
            }
            _ => {
                ranges.push((c, c));
                at += 1;
            }
        }
    }
}
