//! What `./dev bench` may be told.

use std::path::PathBuf;

use super::{PARTS, Settings};

pub const USAGE: &str = "\
bench [compare] [ROUNDS] [--quick] [--pods N] [--only PART] [--json FILE]
bench plot JSON SVG
bench pods [PODS] | pull [ROUNDS [IMAGE|all [PODS]]] | idle [PODS [SECONDS]] | list [PODS]";

/// A comparison, and where its figures go.
#[derive(Debug)]
pub struct Wanted {
    pub settings: Settings,
    pub json: Option<PathBuf>,
}

/// Reads the words after `bench`.
///
/// # Errors
/// The word that is wrong.
pub fn read(words: &[String]) -> Result<Wanted, String> {
    let quick = words.iter().any(|word| word == "--quick");
    let mut settings = if quick { Settings::quick() } else { Settings::full() };
    let mut json = None;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        let number = |text: &String| text.parse().map_err(|_| format!("no number: {text}"));
        match word.as_str() {
            "compare" | "--quick" => {}
            "--pods" => settings.pods = number(value()?)?,
            "--only" => settings.only = part(value()?)?,
            "--json" => json = Some(value()?.into()),
            _ => settings.rounds = number(word)?,
        }
    }
    if settings.rounds == 0 || settings.pods == 0 {
        return Err("nothing to measure".into());
    }
    Ok(Wanted { settings, json })
}

fn part(name: &String) -> Result<String, String> {
    match PARTS.contains(&name.as_str()) {
        true => Ok(name.clone()),
        false => Err(format!("no part {name} of {}", PARTS.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Wanted, String> {
        super::read(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn numbers_win_over_the_quick_form() {
        let wanted = read("compare 7 --pods 30 --quick --json a/b.json").expect("it is right");
        assert_eq!((wanted.settings.rounds, wanted.settings.pods), (7, 30));
        assert_eq!(wanted.json, Some("a/b.json".into()));
        assert_eq!(wanted.settings.pulls, Settings::quick().pulls);
        assert_eq!(read("").expect("it is right").settings.rounds, Settings::full().rounds);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for wrong in ["--pods", "--pods many", "comparison", "0", "--pods 0", "--json", "--only x"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
