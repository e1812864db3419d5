//! "did you mean": the candidate that is a slip of the pen away.

/// The candidate nearest to `word`, if it is near enough to be what was meant: at most one slip in three characters.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    if length > 64 {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (slips(word, candidate), candidate))
        .filter(|(slips, candidate)| *slips <= length.max(candidate.chars().count()) / 3)
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many letters must be inserted, dropped, changed or swapped with their neighbour.
fn slips(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    let mut previous = None;
    for (row, from) in left.chars().enumerate() {
        let mut current = vec![row.saturating_add(1)];
        for (column, to) in right.iter().enumerate() {
            let at = |line: &[usize], index: usize| line.get(index).copied().unwrap_or(usize::MAX);
            let next = column.saturating_add(1);
            let change = at(&last, column).saturating_add(usize::from(from != *to));
            let drop = at(&last, next).saturating_add(1);
            let insert = at(&current, column).saturating_add(1);
            let mut best = change.min(drop).min(insert);
            let swapped = column.checked_sub(1).and_then(|index| right.get(index)) == Some(&from)
                && previous == Some(*to);
            if swapped && let Some(index) = column.checked_sub(1) {
                best = best.min(at(&before_last, index).saturating_add(1));
            }
            current.push(best);
        }
        before_last = std::mem::replace(&mut last, current);
        previous = Some(from);
    }
    last.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_found_and_a_stranger_is_not() {
        let names = ["repository", "repository_id", "environment", "ref"];
        assert_eq!(nearest("repositry", names), Some("repository"));
        assert_eq!(nearest("enviroment", names), Some("environment"));
        assert_eq!(nearest("rfe", names), Some("ref"));
        assert_eq!(nearest("colour", names), None);
        assert_eq!(nearest("", names), None);
        assert_eq!(slips("abcd", "acbd"), 1);
    }
}
