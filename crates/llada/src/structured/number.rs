//! Numbers within bounds, written from left to right.

use serde_json::Number;

/// Digits before the point if the schema does not bound the number on both sides.
const USUAL_DIGITS: usize = 6;

/// Digits before the point at most.
const MOST_DIGITS: usize = 15;

/// Digits after the point of a number that is no integer.
const FRACTION_DIGITS: usize = 3;

/// The JSON numbers between two bounds, with so many digits at most. Numbers are counted in units
/// of the last digit after the point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NumberRule {
    /// Least and largest number, in units.
    range: (i128, i128),
    /// Digits before the point, at most.
    digits: usize,
    /// Digits after the point, at most.
    fraction: usize,
}

/// A bound of a schema.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    /// Its number.
    pub(super) number: Number,
    /// Whether the number itself is out of bounds.
    pub(super) is_exclusive: bool,
}

impl NumberRule {
    /// The numbers, integers or not, that satisfy all bounds; `None` if there are none with at most
    /// [`MOST_DIGITS`].
    pub(super) fn new(is_integer: bool, least: &[Bound], most: &[Bound]) -> Option<Self> {
        let fraction = if is_integer { 0 } else { FRACTION_DIGITS };
        let lower = least.iter().map(|bound| {
            let (floor, is_exact) = units(&bound.number, fraction);
            floor.saturating_add(i128::from(bound.is_exclusive || !is_exact))
        });
        let upper = most.iter().map(|bound| {
            let (floor, is_exact) = units(&bound.number, fraction);
            floor.saturating_sub(i128::from(bound.is_exclusive && is_exact))
        });
        let (lower, upper) = (lower.max(), upper.min());
        let n_digits = |units: i128| {
            let whole = units.unsigned_abs() / 10_u128.pow(fraction as u32);
            whole.to_string().len()
        };
        let bounds = lower.into_iter().chain(upper).map(n_digits);
        let is_open = lower.is_none() || upper.is_none();
        let usual = is_open.then_some(USUAL_DIGITS);
        let digits = bounds.chain(usual).max().unwrap_or(1).min(MOST_DIGITS);
        let largest = 10_i128.pow((digits + fraction) as u32) - 1;
        let range = (
            lower.unwrap_or(-largest).max(-largest),
            upper.unwrap_or(largest).min(largest),
        );
        (range.0 <= range.1).then_some(Self {
            range,
            digits,
            fraction,
        })
    }

    /// Characters at most.
    pub(super) fn length(&self) -> usize {
        let point = if self.fraction > 0 {
            self.fraction + 1
        } else {
            0
        };
        usize::from(self.range.0 < 0) + self.digits + point
    }

    /// Characters that its numbers may have beside digits.
    pub(super) fn characters(&self) -> impl Iterator<Item = char> {
        let sign = (self.range.0 < 0).then_some('-');
        sign.into_iter().chain((self.fraction > 0).then_some('.'))
    }

    /// Whether `text` is a number of the rule.
    pub(super) fn is_complete(&self, text: &str) -> bool {
        let Some(prefix) = Prefix::of(text) else {
            return false;
        };
        let has_digits = !prefix.whole.is_empty() && prefix.fraction.is_none_or(|f| !f.is_empty());
        has_digits && self.begins(text) && {
            let units = self.units(&prefix);
            self.reaches(prefix.is_negative, units, units)
        }
    }

    /// Whether a number of the rule begins with `text`, or is it.
    pub(super) fn begins(&self, text: &str) -> bool {
        let Some(prefix) = Prefix::of(text) else {
            return false;
        };
        let (whole, digits) = (prefix.whole, prefix.whole.len());
        let has_leading_zero = digits > 1 && whole.starts_with('0');
        let is_long = digits > self.digits
            || (prefix.fraction).is_some_and(|fraction| fraction.len() > self.fraction);
        if has_leading_zero || is_long || (prefix.fraction.is_some() && self.fraction == 0) {
            return false;
        }
        let units = self.units(&prefix);
        if let Some(fraction) = prefix.fraction {
            let rest = 10_i128.pow((self.fraction - fraction.len()) as u32);
            return digits > 0 && self.reaches(prefix.is_negative, units, units + rest - 1);
        }
        if digits == 0 {
            return self.reaches(prefix.is_negative, 0, i128::MAX);
        }
        // Further digits before the point, and any after it.
        let point = 10_i128.pow(self.fraction as u32);
        let most = if whole == "0" {
            0
        } else {
            self.digits - digits
        };
        (0..=most).any(|further| {
            let scale = 10_i128.pow(further as u32);
            let first = units * scale;
            self.reaches(prefix.is_negative, first, first + scale * point - 1)
        })
    }

    /// A number's size in units, as far as it is written.
    fn units(&self, prefix: &Prefix<'_>) -> i128 {
        let fraction = prefix.fraction.unwrap_or_default();
        let digits = prefix.whole.bytes().chain(fraction.bytes());
        let units = digits.fold(0, |units, digit| units * 10 + i128::from(digit - b'0'));
        units * 10_i128.pow((self.fraction - fraction.len()) as u32)
    }

    /// Whether a number of the rule has a size between `first` and `last`. Zero has no sign.
    fn reaches(&self, is_negative: bool, first: i128, last: i128) -> bool {
        let (least, most) = match is_negative {
            true => ((-self.range.1).max(1), -self.range.0),
            false => (self.range.0.max(0), self.range.1),
        };
        first.max(least) <= last.min(most)
    }
}

/// The beginning of a number.
struct Prefix<'t> {
    is_negative: bool,
    /// Digits before the point.
    whole: &'t str,
    /// Digits after the point, if there is one.
    fraction: Option<&'t str>,
}

impl<'t> Prefix<'t> {
    /// `None` if no number begins so.
    fn of(text: &'t str) -> Option<Self> {
        let (is_negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = match rest.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (rest, None),
        };
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let is_number = is_digits(whole) && is_digits(fraction.unwrap_or_default());
        is_number.then_some(Self {
            is_negative,
            whole,
            fraction,
        })
    }
}

/// The largest number of units that is not above a number, and whether it is the number itself.
/// What has too many digits is as large as can be.
fn units(number: &Number, fraction: usize) -> (i128, bool) {
    let text = number.to_string();
    let (is_negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, &*text),
    };
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    // At most 39 digits of an f64 or a 64-bit integer, and its exponent below 400.
    let digits = format!("{whole}{decimals}");
    let digits = digits.trim_start_matches('0');
    let exponent: i64 = exponent.parse().unwrap_or(0);
    let shift = exponent - decimals.len() as i64 + fraction as i64;
    let size = |digits: &str| digits.parse::<i128>().unwrap_or(i128::MAX / 4);
    let (size, is_exact) = if digits.is_empty() {
        (0, true)
    } else if shift >= 0 {
        let length = (shift as usize).min(40);
        (size(&format!("{digits}{}", "0".repeat(length))), true)
    } else {
        let kept = digits.len().saturating_sub(shift.unsigned_abs() as usize);
        let is_exact = digits[kept..].bytes().all(|digit| digit == b'0');
        let kept = if kept == 0 { 0 } else { size(&digits[..kept]) };
        (kept, is_exact)
    };
    match is_negative {
        true => (-size - i128::from(!is_exact), is_exact),
        false => (size, is_exact),
    }
}

#[cfg(test)]
mod tests;
