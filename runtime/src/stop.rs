//! Stop strings in streamed text: nothing is shown that may be the beginning of one.

/// Watches a stream of text for stop strings.
#[derive(Debug, Clone, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    /// Text that may be the beginning of a stop string.
    held: String,
}

/// What may be shown, and whether a stop string was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shown {
    /// Text to show now.
    pub text: String,
    /// Number of the stop string that ends the text. It is not part of the text.
    pub stop: Option<usize>,
}

impl StopStrings {
    /// Empty strings are ignored.
    pub fn new(stops: &[String]) -> StopStrings {
        StopStrings { stops: stops.to_vec(), held: String::new() }
    }

    /// Adds text; returns what is certain not to belong to a stop string. The stop string that begins first wins, then the longer one.
    pub fn push(&mut self, text: &str) -> Shown {
        self.held.push_str(text);
        let find = |(i, stop): (usize, &String)| self.held.find(stop.as_str()).map(|at| (at, usize::MAX - stop.len(), i));
        let found = self.stops.iter().enumerate().filter(|(_, s)| !s.is_empty()).filter_map(find).min();
        let open = self.first_open();
        match found {
            // A longer one may have begun before: then it is not decided yet.
            Some((at, _, i)) if open.is_none_or(|o| at <= o) => {
                self.held.truncate(at);
                Shown { text: std::mem::take(&mut self.held), stop: Some(i) }
            }
            _ => {
                let rest = self.held.split_off(open.unwrap_or(self.held.len()));
                Shown { text: std::mem::replace(&mut self.held, rest), stop: None }
            }
        }
    }

    /// Ends the text: what was held back is shown, but for a stop string in it.
    pub fn flush(&mut self) -> String {
        let end = self.stops.iter().filter(|s| !s.is_empty()).filter_map(|s| self.held.find(s.as_str())).min();
        self.held.truncate(end.unwrap_or(self.held.len()));
        std::mem::take(&mut self.held)
    }

    /// Where the earliest suffix begins that is the beginning of a stop string, but not all of it.
    fn first_open(&self) -> Option<usize> {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest.saturating_sub(1));
        let may_open = |at: &usize| {
            let suffix = &self.held.as_bytes()[*at..];
            self.stops.iter().any(|s| s.len() > suffix.len() && s.as_bytes().starts_with(suffix))
        };
        (from..self.held.len()).filter(|at| self.held.is_char_boundary(*at)).find(may_open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, Option<usize>) {
        let mut watch = StopStrings::new(&stops.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        let mut shown = Vec::new();
        for piece in pieces {
            let s = watch.push(piece);
            shown.push(s.text);
            if s.stop.is_some() {
                return (shown, s.stop);
            }
        }
        shown.push(watch.flush());
        (shown, None)
    }

    #[test]
    fn text_that_may_begin_a_stop_string_waits_until_it_is_decided() {
        assert_eq!(run(&["\nUser:"], &["hi\n", "Us", "er", ":", "x"]).0, ["hi", "", "", ""]);
        assert_eq!(run(&["\nUser:"], &["hi\n", "Us", "e it"]).0, ["hi", "", "\nUse it", ""]);
        assert_eq!(run(&["\nUser:"], &["hi\nU"]).0, ["hi", "\nU"]);
        assert_eq!(run(&["é!"], &["aé", "é!b"]), (vec!["a".to_owned(), "é".to_owned()], Some(0)));
    }

    #[test]
    fn overlapping_beginnings_are_all_kept() {
        assert_eq!(run(&["aab"], &["a", "a", "a", "b", "c"]), (["", "", "a", ""].map(str::to_owned).to_vec(), Some(0)));
        assert_eq!(run(&["abcd", "bc"], &["ab", "c", "x"]), (["", "", "a"].map(str::to_owned).to_vec(), Some(1)));
        assert_eq!(run(&["abcd", "bc"], &["abcd"]), (vec![String::new()], Some(0)));
    }

    #[test]
    fn without_stop_strings_everything_is_shown_at_once() {
        assert_eq!(run(&[], &["a", "b"]).0, ["a", "b", ""]);
        assert_eq!(run(&[""], &["a"]).0, ["a", ""]);
    }

    #[test]
    fn every_way_to_cut_a_text_shows_the_same() {
        let text = "one two</s three</s> four";
        for size in 1..text.len() {
            let pieces: Vec<&str> = text.as_bytes().chunks(size).map(|c| std::str::from_utf8(c).expect("ascii")).collect();
            let (shown, stop) = run(&["</s>", "three four"], &pieces);
            assert_eq!((shown.concat().as_str(), stop), ("one two</s three", Some(0)), "pieces of {size}");
        }
    }
}
