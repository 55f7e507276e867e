//! `strftime_now`: the date in a prompt, in UTC. Only English names, as Python's C locale has them.

use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];

/// Seconds since 1970 UTC by the clock of the machine.
pub(super) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(0))
}

/// The second `now` in the words of `format`, as Python's `strftime`. Letters that are not known stay as they are.
pub(super) fn strftime(format: &str, now: i64) -> String {
    let (days, second) = (now.div_euclid(86_400), now.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let month_name = MONTHS[(month - 1) as usize % 12];
    let day_name = DAYS[(days + 4).rem_euclid(7) as usize];
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let (letter, plain) = match chars.next() {
            Some('-') => (chars.next(), true),
            letter => (letter, false),
        };
        let two = |n: i64| if plain { n.to_string() } else { format!("{n:02}") };
        match letter {
            Some('d') => out += &two(day),
            Some('m') => out += &two(month),
            Some('y') => out += &two(year.rem_euclid(100)),
            Some('Y') => out += &year.to_string(),
            Some('B') => out += month_name,
            Some('b' | 'h') => out += &month_name[..3],
            Some('A') => out += day_name,
            Some('a') => out += &day_name[..3],
            Some('H') => out += &two(hour),
            Some('I') => out += &two((hour + 11) % 12 + 1),
            Some('M') => out += &two(minute),
            Some('S') => out += &two(second % 60),
            Some('p') => out += if hour < 12 { "AM" } else { "PM" },
            Some('j') => out += &if plain { day_of_year(days, year).to_string() } else { format!("{:03}", day_of_year(days, year)) },
            Some('F') => out += &format!("{year}-{month:02}-{day:02}"),
            Some('T') => out += &format!("{hour:02}:{minute:02}:{:02}", second % 60),
            Some('%') => out.push('%'),
            Some(other) => out.extend(['%', other]),
            None => out.push('%'),
        }
    }
    out
}

/// Year, month and day of a day counted from 1 January 1970, in the Gregorian calendar. Years are taken from March on, so that the
/// leap day is the last one.
fn civil(days: i64) -> (i64, i64, i64) {
    const FOUR_CENTURIES: i64 = 146_097;
    let since = days + 719_468; // from 1 March of the year 0
    let (era, day) = (since.div_euclid(FOUR_CENTURIES), since.rem_euclid(FOUR_CENTURIES));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year + era * 400 + next, month, date)
}

fn day_of_year(days: i64, year: i64) -> i64 {
    // The one January first that is in the same year.
    (0..366).take_while(|back| civil(days - back).0 == year).count() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_at_the_edges_of_the_calendar() {
        let day = |days: i64| strftime("%a %d %b %Y %j", days * 86_400);
        assert_eq!(day(0), "Thu 01 Jan 1970 001");
        assert_eq!(day(11_016), "Tue 29 Feb 2000 060");
        assert_eq!(day(11_017), "Wed 01 Mar 2000 061");
        assert_eq!(day(19_930), "Fri 26 Jul 2024 208");
        assert_eq!(day(20_088), "Tue 31 Dec 2024 366");
        assert_eq!(day(-1), "Wed 31 Dec 1969 365");
        assert_eq!(day(47_540), "Sun 28 Feb 2100 059");
        assert_eq!(day(47_541), "Mon 01 Mar 2100 060");
    }

    #[test]
    fn formats_are_pythons() {
        let at = 1_721_981_045; // 26 July 2024, 08:04:05
        assert_eq!(strftime("%d %B %Y, %H:%M:%S %I%p", at), "26 July 2024, 08:04:05 08AM");
        assert_eq!(strftime("%-d/%-m/%y %A %F %T %% %q %", at), "26/7/24 Friday 2024-07-26 08:04:05 % %q %");
        assert_eq!(strftime("%I %p", 0), "12 AM");
    }
}
