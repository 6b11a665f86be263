//! Checks the derivation path of an account key. A path shows which kind of addresses wallets derive from the key, so a
//! wrong path means that a wallet would not show the deposits.

use chain::Family;

use crate::Purpose;

/// The first levels of Bitcoin account paths that are refused, each with the addresses that wallets derive below it.
const BITCOIN_PURPOSES: [(u32, &str); 4] = [
    (44, "old addresses that begin with 1"),
    (45, "multi-signature addresses"),
    (48, "multi-signature addresses"),
    (49, "nested SegWit addresses that begin with 3"),
];

/// Returns the problem of an account's path; `None` when the path fits the family and the purpose of the account, and
/// when no path is given (`""` or `m`).
pub fn find_account_path_problem(family: Family, purpose: Purpose, path: &str) -> Option<String> {
    let path = path.trim();
    if path.is_empty() || path == "m" {
        return None;
    }
    if let Some(strange) = path.chars().find(|letter| !letter.is_ascii()) {
        return Some(format!(
            "is {path}, which has the character {strange} of a word processor; write a straight ' or the letter h"
        ));
    }
    let expected = example_path(family, purpose);
    let Some([first, coin, _]) = parse_three_hardened_levels(path) else {
        return Some(format!(
            "is {path}, which is not the path of an account; write it as {expected}, or leave it out"
        ));
    };
    let is_known = match family {
        Family::Bitcoin => first == 84 || first == 86,
        Family::Evm | Family::Tron => first == 44,
    };
    if !is_known {
        let other = BITCOIN_PURPOSES.iter().find(|(number, _)| family == Family::Bitcoin && *number == first);
        let addresses = other.map_or("other addresses", |(_, addresses)| addresses);
        return Some(format!(
            "is {path}: wallets derive {addresses} below m/{first}', which are not derived here, so the wallet would not \
             show the deposits; use the account of {expected}"
        ));
    }
    find_coin_problem(family, purpose, path, coin)
}

/// Returns the problem of the second level of a path, which is the SLIP-44 number of a coin; `None` when it fits the
/// family. An account for test money may also have the number 1, which stands for all test networks.
fn find_coin_problem(family: Family, purpose: Purpose, path: &str, coin: u32) -> Option<String> {
    let expected = coin_of_family(family);
    match (coin, purpose) {
        (coin, _) if coin == expected => None,
        (1, Purpose::DepositTest) => None,
        (1, Purpose::Deposit) => Some(format!(
            "is {path}, an account of test networks (coin 1), but purpose = \"deposit\" is for live money; use the account \
             of {}",
            example_path(family, purpose)
        )),
        (_, Purpose::Deposit | Purpose::DepositTest) => Some(format!(
            "is {path}, an account of another coin ({coin}); use the account of {}, or leave the path out if your wallet \
             has it there on purpose",
            example_path(family, purpose)
        )),
    }
}

/// Returns the number of the family's main coin (SLIP-44).
fn coin_of_family(family: Family) -> u32 {
    match family {
        Family::Bitcoin => 0,
        Family::Evm => 60,
        Family::Tron => 195,
    }
}

/// Returns the path of the first account of this family and purpose, as `settled-signer keys xpubs` prints it.
fn example_path(family: Family, purpose: Purpose) -> String {
    let first = if family == Family::Bitcoin { 84 } else { 44 };
    let account = match purpose {
        Purpose::Deposit => 0,
        Purpose::DepositTest => 1,
    };
    format!("m/{first}'/{}'/{account}'", coin_of_family(family))
}

/// Parses a path of three hardened levels, such as `m/84'/0'/0'` or `84h/0h/0h`, to the numbers of the levels. Returns
/// `None` for every other text.
fn parse_three_hardened_levels(path: &str) -> Option<[u32; 3]> {
    let levels = path.strip_prefix("m/").unwrap_or(path).split('/').map(|level| {
        let number = level.strip_suffix(['\'', 'h', 'H'])?;
        number.parse::<u32>().ok().filter(|number| *number < 1 << 31 && number.to_string() == level[..level.len() - 1])
    });
    levels.collect::<Option<Vec<u32>>>()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_an_account_must_fit_its_family_and_purpose() {
        let (bitcoin, evm, tron) = (Family::Bitcoin, Family::Evm, Family::Tron);
        let (live, test) = (Purpose::Deposit, Purpose::DepositTest);
        let fitting = [
            (bitcoin, live, ""),
            (bitcoin, live, "m"),
            (bitcoin, live, "m/84'/0'/0'"),
            (bitcoin, live, "84h/0H/100'"),
            (bitcoin, live, "m/86'/0'/7'"),
            (bitcoin, test, "m/84'/0'/1'"),
            (bitcoin, test, "m/86'/1'/1'"),
            (evm, live, "m/44'/60'/0'"),
            (evm, test, "m/44'/1'/0'"),
            (tron, live, " m/44'/195'/0' "),
        ];
        for (family, purpose, path) in fitting {
            assert_eq!(find_account_path_problem(family, purpose, path), None, "{path}");
        }
        let wrong = [
            (bitcoin, live, "m/49'/0'/0'", "wallets derive nested SegWit addresses that begin with 3 below m/49'"),
            (bitcoin, live, "m/44'/0'/0'", "old addresses that begin with 1 below m/44'"),
            (bitcoin, live, "m/48'/0'/0'", "multi-signature"),
            (bitcoin, live, "m/84\u{2019}/0\u{2019}/0\u{2019}", "the character \u{2019} of a word processor"),
            (bitcoin, live, "m/86\u{2032}/0\u{2032}/0\u{2032}", "write a straight ' or the letter h"),
            (bitcoin, live, "m/84'/1'/0'", "an account of test networks (coin 1)"),
            (bitcoin, live, "m/84'/2'/0'", "another coin (2)"),
            (bitcoin, live, "m/84'/0'", "write it as m/84'/0'/0', or leave it out"),
            (bitcoin, live, "m/84'/0'/0'/0", "is not the path of an account"),
            (bitcoin, live, "m/84/0/0", "is not the path of an account"),
            (bitcoin, live, "m/084'/0'/0'", "is not the path of an account"),
            (evm, live, "m/84'/60'/0'", "use the account of m/44'/60'/0'"),
            (evm, live, "m/44'/195'/0'", "another coin (195)"),
            (evm, live, "m/44'/1'/0'", "purpose = \"deposit\" is for live money"),
            (tron, test, "m/44'/60'/0'", "use the account of m/44'/195'/1'"),
        ];
        for (family, purpose, path, expected) in wrong {
            let problem = find_account_path_problem(family, purpose, path).unwrap_or_default();
            assert!(problem.contains(expected), "{path}: {problem}");
        }
    }
}
