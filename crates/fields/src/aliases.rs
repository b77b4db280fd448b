//! Names of other people for fields of ours, as data.

use model::Fields;

/// Field names, each with the names under which others know it. Applied to an event, a field that
/// is missing gets the values of the first of its other names that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aliases {
    names: Vec<(String, Vec<String>)>,
}

impl Aliases {
    pub fn new(names: impl IntoIterator<Item = (String, Vec<String>)>) -> Self {
        Self { names: names.into_iter().collect() }
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Adds what is missing. An alias may name a field that an earlier one added.
    pub fn apply(&self, out: &mut Fields<'_>) {
        for (ours, theirs) in &self.names {
            if out.exists(ours) {
                continue;
            }
            let Some(theirs) = theirs.iter().find(|name| out.exists(name)) else { continue };
            for at in 0..out.leaves().len() {
                let leaf = &out.leaves()[at];
                if leaf.name != *theirs {
                    continue;
                }
                match leaf.value.clone() {
                    Some(value) => out.push(ours.clone(), value),
                    None => out.push_null(ours.clone()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_field_gets_all_values_of_its_first_other_name() {
        let aliases = Aliases::new([
            ("Image".to_owned(), vec!["proc".to_owned(), "exe".to_owned()]),
            ("User".to_owned(), vec!["user".to_owned()]),
        ]);
        let mut fields = Fields::default();
        fields.push("exe", "/bin/a");
        fields.push("exe", "/bin/b");
        fields.push("user", "x");
        fields.push("User", "y");
        aliases.apply(&mut fields);
        assert_eq!(fields.values("Image").collect::<Vec<_>>(), ["/bin/a", "/bin/b"]);
        assert_eq!(fields.values("User").collect::<Vec<_>>(), ["y"]);
    }
}
