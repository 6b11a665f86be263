//! Hints: commands that messages recommend. A hint names the installation, so that the operator can copy it.

use std::path::Path;

use crate::commands::installation::CONFIG;
use config::Config;

/// Returns a command line in backticks, such as `` `settled migrate --config /srv/settled.toml` ``. `command` is the part
/// between the name of the program and the option that selects the installation.
pub fn format_hint(config: &Config, command: &str) -> String {
    format!("`settled {command}{}`", format_installation_option(config))
}

/// Returns the option that selects the installation, with a space before it; empty when commands select the installation
/// without an option.
fn format_installation_option(config: &Config) -> String {
    match &config.file {
        Some(file) if file == Path::new(CONFIG) => String::new(),
        Some(file) => format!(" --config {}", quote_for_shell(&file.display().to_string())),
        None => format!(" --data {}", quote_for_shell(&config.data.folder.display().to_string())),
    }
}

/// Returns the text in single quotes when a shell would not take it as one plain word.
fn quote_for_shell(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::{format_hint, quote_for_shell};
    use config::Config;

    #[test]
    fn a_hint_can_be_copied_into_a_shell() {
        let named = |file: &str| format_hint(&Config { file: Some(file.into()), ..Config::default() }, "migrate");
        assert_eq!(named("/etc/settled/settled.toml"), "`settled migrate`");
        assert_eq!(named("/my shop/settled.toml"), "`settled migrate --config '/my shop/settled.toml'`");
        let mut demo = Config { file: None, ..Config::default() };
        demo.data.folder = "/home/me/.settled-dev".into();
        assert_eq!(
            format_hint(&demo, "admin product list"),
            "`settled admin product list --data /home/me/.settled-dev`"
        );
        assert_eq!(quote_for_shell("it's"), r"'it'\''s'");
    }
}
