//! The names that users give to workspaces and pipelines: their stored form, and when two of them are the same.
//!
//! A name is stored in Unicode's normalization form C. Two names are the same if they differ only in case, so that `Load` and `load`
//! never stand side by side, nor as two files where a file system ignores case. A name holds no character that nobody can see.

use std::borrow::Cow;

use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};
use icu_properties::props::{DefaultIgnorableCodePoint, EmojiModifier, ExtendedPictographic, GeneralCategory};
use icu_properties::{CodePointMapData, CodePointSetData};
use unicase::UniCase;

/// Joins emoji to one, such as the members of a family.
const JOINER: char = '\u{200d}';
/// Asks for the coloured, or the plain, form of the character before it.
const PRESENTATION: [char; 2] = ['\u{fe0e}', '\u{fe0f}'];
/// Begins a flag of a region. Tags with the region's code follow, and a tag that ends them.
const BLACK_FLAG: char = '\u{1f3f4}';
const TAG_DIGIT_0: char = '\u{e0030}';
const TAG_DIGIT_9: char = '\u{e0039}';
const TAG_A: char = '\u{e0061}';
const TAG_Z: char = '\u{e007a}';
const END_OF_TAGS: char = '\u{e007f}';
/// A country and a part of it, as in ISO 3166-2.
const LONGEST_REGION: usize = 5;
/// Looks like white space, and is none by its properties.
const BLANK_BRAILLE: char = '\u{2800}';
/// Stands between the key of a name and the id of what has it, where an earlier version let two things have names with the same key.
/// No name can hold it.
const DISAMBIGUATOR: char = '\u{1f}';

/// The form in which a name is stored: NFC.
pub fn normalize(name: &str) -> Cow<'_, str> {
    ComposingNormalizerBorrowed::new_nfc().normalize(name)
}

/// What is the same for two names if, and only if, they differ in nothing but case, and in the presentation of emoji.
pub fn key(name: &str) -> String {
    let decomposed = DecomposingNormalizerBorrowed::new_nfd().normalize(name);
    let folded = UniCase::unicode(decomposed).to_folded_case();
    let visible: String = folded.chars().filter(|c| !PRESENTATION.contains(c) && *c != JOINER).collect();
    normalize(&visible).into_owned()
}

/// The key of a name beside another thing whose name has the same one.
pub fn disambiguated(key: &str, id: impl std::fmt::Display) -> String {
    format!("{key}{DISAMBIGUATOR}{id}")
}

/// Whether this stored key is that of a name.
pub fn is_key_of(stored: &str, name: &str) -> bool {
    let rest = stored.strip_prefix(&key(name));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(DISAMBIGUATOR))
}

/// The keys between which all disambiguated ones of a key are.
pub fn disambiguated_range(key: &str) -> (String, String) {
    (format!("{key}{DISAMBIGUATOR}"), format!("{key} "))
}

/// The first character of a name that it cannot hold: a control character, one that cannot be seen, a space other than the usual one, one
/// that Unicode does not assign, or whose look is private.
pub fn unfit(name: &str) -> Option<char> {
    let chars: Vec<char> = name.chars().collect();
    (0..chars.len()).find(|place| is_unfit_at(&chars, *place)).map(|place| chars[place])
}

/// Whether a character cannot be seen, or not be told from another, where it stands.
pub fn is_unfit_at(chars: &[char], place: usize) -> bool {
    is_unfit(chars[place]) && !is_part_of_emoji(chars, place)
}

/// Whether a character cannot be seen, or not be told from another, unless it is part of an emoji.
pub fn is_unfit(c: char) -> bool {
    use GeneralCategory as Category;
    let category = CodePointMapData::<Category>::new().get(c);
    let unfit = matches!(
        category,
        Category::Control
            | Category::Format
            | Category::LineSeparator
            | Category::ParagraphSeparator
            | Category::PrivateUse
            | Category::Surrogate
            | Category::Unassigned
    );
    let other_space = category == Category::SpaceSeparator && c != ' ';
    unfit || other_space || c == BLANK_BRAILLE || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
}

/// Whether an invisible character has its usual task in an emoji: to choose its form, to join it to the next, or to say of which region a
/// flag is.
fn is_part_of_emoji(chars: &[char], place: usize) -> bool {
    let pictographic = CodePointSetData::new::<ExtendedPictographic>();
    let modifier = CodePointSetData::new::<EmojiModifier>();
    let Some(before) = place.checked_sub(1).map(|it| chars[it]) else { return false };
    match chars[place] {
        c if PRESENTATION.contains(&c) => pictographic.contains(before) || before.is_ascii_digit() || before == '#',
        JOINER => {
            let joins = pictographic.contains(before) || modifier.contains(before) || PRESENTATION.contains(&before);
            joins && chars.get(place + 1).is_some_and(|after| pictographic.contains(*after))
        }
        TAG_DIGIT_0..=TAG_DIGIT_9 | TAG_A..=TAG_Z | END_OF_TAGS => is_in_flag(chars, place),
        _ => false,
    }
}

/// Whether a place is in a black flag with the code of a region in tags, such as the flag of Wales.
fn is_in_flag(chars: &[char], place: usize) -> bool {
    let longest = LONGEST_REGION + 1;
    let Some(flag) = (place.saturating_sub(longest)..place).rev().find(|it| chars[*it] == BLACK_FLAG) else {
        return false;
    };
    let tags = &chars[flag + 1..];
    let Some(end) = tags.iter().take(longest).position(|c| *c == END_OF_TAGS) else { return false };
    let (country, region) = tags[..end].split_at(end.min(2));
    let is_letter = |c: &char| (TAG_A..=TAG_Z).contains(c);
    let is_tag = |c: &char| is_letter(c) || (TAG_DIGIT_0..=TAG_DIGIT_9).contains(c);
    flag + 1 + end >= place && !region.is_empty() && country.iter().all(is_letter) && region.iter().all(is_tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_in_case_or_composition_have_the_same_key() {
        for (one, other) in [
            ("Load", "load"),
            ("Caf\u{e9}", "CAFE\u{301}"),
            ("Straße", "STRASSE"),
            ("ΣΊΣΥΦΟΣ", "σίσυφος"),
            ("☁", "☁\u{fe0f}"),
            ("\u{1e9e}", "ss"),
            ("\u{345}\u{3b1}", "\u{3b9}\u{3b1}"),
        ] {
            assert_eq!(key(one), key(other), "{one} {other}");
            assert!(is_key_of(&key(one), other) && is_key_of(&disambiguated(&key(one), 1), other));
        }
        assert_ne!(key("Load 1"), key("Load 2"));
        assert!(!is_key_of(&key("Load 2"), "Load"));
        let (from, to) = disambiguated_range(&key("load"));
        assert!((from..to).contains(&disambiguated("load", 7)));
    }

    #[test]
    fn what_can_be_seen_may_be_in_a_name() {
        for name in [
            "Load",
            "Café au lait",
            "日本語 テスト",
            "Ελληνικά",
            "🚀 Deploy",
            "☁\u{fe0f} Sync",
            "a-b_c (1) #2 + é",
            "हिन्दी",
            "ไทย",
        ] {
            assert_eq!(unfit(name), None, "{name}");
        }
        assert_eq!(unfit("👩\u{200d}👩\u{200d}👧"), None);
        assert_eq!(unfit("👩🏽\u{200d}🚀"), None);
        let england = "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}";
        assert_eq!(unfit(&format!("{england} Load {england}")), None);
        assert_eq!(unfit("🏴\u{e0067}\u{e0062}\u{e0065}"), Some('\u{e0067}'), "it does not end");
        assert_eq!(unfit(&format!("{england}\u{e007f}")), Some('\u{e007f}'));
        assert_eq!(unfit("🏴\u{e0067}\u{e0062}\u{e007f}"), Some('\u{e0067}'), "too short");
        assert_eq!(unfit("🏴\u{e0067}\u{e0062}x\u{e0065}\u{e007f}"), Some('\u{e0067}'));
        assert_eq!(unfit("🏳\u{fe0f}\u{200d}🌈"), None);
    }

    #[test]
    fn what_cannot_be_seen_may_not() {
        for c in [
            '\u{0}',
            '\t',
            '\n',
            '\u{7f}',
            '\u{85}',
            '\u{a0}',
            '\u{ad}',
            '\u{34f}',
            '\u{61c}',
            '\u{115f}',
            '\u{1680}',
            '\u{17b4}',
            '\u{180e}',
            '\u{2003}',
            '\u{200b}',
            '\u{200c}',
            '\u{200d}',
            '\u{200e}',
            '\u{200f}',
            '\u{2028}',
            '\u{202e}',
            '\u{202f}',
            '\u{2060}',
            '\u{2066}',
            '\u{206a}',
            '\u{2800}',
            '\u{3000}',
            '\u{3164}',
            '\u{e000}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{ffa0}',
            '\u{fff9}',
            '\u{ffff}',
            '\u{1d173}',
            '\u{e0001}',
            '\u{e0061}',
            '\u{e0100}',
            '\u{10ffff}',
        ] {
            assert_eq!(unfit(&format!("a{c}b")), Some(c), "{c:?}");
        }
    }
}
