//! A table as `iptables-save` prints it.

use std::collections::BTreeSet;

use super::{Addition, Removal, Rule, Step};

/// The chains of a table, and their rules in order.
#[derive(Debug, Default)]
pub(crate) struct Saved<'a> {
    chains: BTreeSet<&'a str>,
    rules: Vec<(&'a str, &'a str)>,
}

impl<'a> Saved<'a> {
    pub(crate) fn parse(text: &'a str) -> Self {
        let mut saved = Self::default();
        for line in text.lines() {
            if let Some((chain, _)) = line.strip_prefix(':').and_then(|rest| rest.split_once(' ')) {
                saved.chains.insert(chain);
            } else if let Some((chain, rule)) =
                line.strip_prefix("-A ").and_then(|rest| rest.split_once(' '))
            {
                saved.rules.push((chain, rule));
            }
        }
        saved
    }

    /// Are any of these chains there?
    pub(crate) fn has_any(&self, chains: &[String]) -> bool {
        chains.iter().any(|chain| self.chains.contains(chain.as_str()))
    }

    fn has(&self, chain: &str, rule: &str) -> bool {
        self.rules.contains(&(chain, rule))
    }

    /// The lines that do what is missing. `check` is asked where the same rule may be printed in another way.
    pub(crate) fn missing<E>(
        &self,
        addition: &Addition,
        check: impl Fn(&str, &Rule) -> Result<bool, E>,
    ) -> Result<Vec<String>, E> {
        let mut lines: Vec<String> = Vec::new();
        let mut fresh = BTreeSet::new();
        for step in &addition.steps {
            let (verb, chain, rule) = match step {
                Step::Chain(name) | Step::Own(name) => {
                    if !self.chains.contains(name.as_str()) && fresh.insert(name.as_str()) {
                        lines.push(format!("-N {name}"));
                    }
                    continue;
                }
                Step::First(chain, rule) => ("-I", chain, rule),
                Step::Last(chain, rule) => ("-A", chain, rule),
            };
            let text = rule.to_string();
            let line = format!("{verb} {chain} {text}");
            let known = lines.contains(&line) || self.has(chain, &text);
            let elsewise = || {
                let leads_nowhere = rule.leads_to().is_some_and(|target| fresh.contains(target));
                let doubtful = !fresh.contains(chain.as_str()) && !leads_nowhere;
                if doubtful && rule.is_variable() { check(chain, rule) } else { Ok(false) }
            };
            if !known && !elsewise()? {
                lines.push(line);
            }
        }
        Ok(lines)
    }

    /// The lines that take away what is there.
    pub(crate) fn present(&self, removal: &Removal) -> Vec<String> {
        let mut lines = Vec::new();
        for (chain, rule) in &removal.rules {
            let text = rule.to_string();
            if self.has(chain, &text) {
                lines.push(format!("-D {chain} {text}"));
            }
        }
        for (chain, entry) in &removal.chains {
            if !self.chains.contains(chain.as_str()) {
                continue;
            }
            let end = format!("-j {chain}");
            let leads = |rule: &str| rule.strip_suffix(&end).is_some_and(is_end_of_words);
            let rules = self.rules.iter().filter(|(at, rule)| at == entry && leads(rule));
            lines.extend(rules.map(|(_, rule)| format!("-D {entry} {rule}")));
            lines.push(format!("-F {chain}"));
            lines.push(format!("-X {chain}"));
        }
        lines
    }
}

fn is_end_of_words(text: &str) -> bool {
    text.is_empty() || text.ends_with(' ')
}

#[cfg(test)]
mod tests {
    use super::super::{Family, Match, Table, Target};
    use super::*;

    const TABLE: &str = "# Generated\n*nat\n:POSTROUTING ACCEPT [0:0]\n:CNI-a - [0:0]\n:CNI-ab - [0:0]\n\
        -A POSTROUTING -s 10.0.0.2/32 -m comment --comment \"id: \\\"a\\\"\" -j CNI-a\n\
        -A POSTROUTING -j CNI-a\n-A POSTROUTING -m comment --comment \"x-j CNI-a\" -j CNI-ab\n\
        -A CNI-a -d 10.0.0.0/24 -j ACCEPT\nCOMMIT\n";

    fn addition(steps: Vec<Step>) -> Addition {
        Addition { table: Table::Nat, family: Family::V4, steps }
    }

    #[test]
    fn only_what_is_missing_is_added() {
        let accept = |net: &str| Rule::new(Target::Accept).to(net.parse().unwrap());
        let saved = Saved::parse(TABLE);
        let last = |chain: &str, rule| Step::Last(chain.to_owned(), rule);
        let steps = vec![
            Step::Chain("CNI-a".into()),
            last("CNI-a", accept("10.0.0.7/24")),
            last("CNI-a", accept("10.0.1.7/24")),
            last("CNI-a", accept("10.0.1.8/24")),
            Step::Chain("CNI-new".into()),
            Step::First("POSTROUTING".into(), Rule::jump("CNI-new")),
            last("CNI-new", Rule::new(Target::Masquerade)),
            last("POSTROUTING", Rule::jump("CNI-ab")),
        ];
        let asked = std::cell::RefCell::new(Vec::new());
        let check = |chain: &str, rule: &Rule| {
            asked.borrow_mut().push(format!("{chain} {rule}"));
            Ok::<_, ()>(true)
        };
        let lines = saved.missing(&addition(steps.clone()), check).unwrap();
        let expected = [
            "-A CNI-a -d 10.0.1.0/24 -j ACCEPT",
            "-N CNI-new",
            "-I POSTROUTING -j CNI-new",
            "-A CNI-new -j MASQUERADE",
        ];
        assert_eq!(lines, expected);
        assert_eq!(*asked.borrow(), ["POSTROUTING -j CNI-ab"], "it may be printed otherwise");
        let none = saved.missing(&addition(steps), |_, _| Ok::<_, ()>(false)).unwrap();
        assert_eq!(none.last().unwrap(), "-A POSTROUTING -j CNI-ab");
        let given = Rule::jump("CNI-ab").when(Match::Given(vec!["!".into(), "-s".into()]));
        let refused = saved.missing(&addition(vec![last("CNI-a", given)]), |_, _| Err(7));
        assert_eq!(refused, Err(7));
    }

    #[test]
    fn a_chain_goes_with_what_leads_to_it_and_nothing_else() {
        let saved = Saved::parse(TABLE);
        let accept = Rule::new(Target::Accept).to("10.0.0.9/24".parse().unwrap());
        let removal = Removal {
            table: Table::Nat,
            family: Family::V4,
            chains: vec![("CNI-a".into(), "POSTROUTING"), ("CNI-gone".into(), "POSTROUTING")],
            rules: vec![("CNI-a", accept), ("CNI-a", Rule::new(Target::Accept))],
        };
        let expected = [
            "-D CNI-a -d 10.0.0.0/24 -j ACCEPT",
            "-D POSTROUTING -s 10.0.0.2/32 -m comment --comment \"id: \\\"a\\\"\" -j CNI-a",
            "-D POSTROUTING -j CNI-a",
            "-F CNI-a",
            "-X CNI-a",
        ];
        assert_eq!(saved.present(&removal), expected);
        assert!(Saved::parse("").present(&removal).is_empty());
    }
}
