//! All SQL of users.

use crate::users::{NewUser, State, User};
use clock::Instant;
use db::{self, Row, Tx, execute, expect_changed, row, rows};
use ids::{Shop, UserId};

/// Inserts an active user and returns the id of the user; `None` when another user of the shop has the name.
pub async fn insert_user_if_name_free(
    tx: &mut Tx,
    now: Instant,
    shop: Shop,
    new: &NewUser,
) -> Result<Option<UserId>, db::Error> {
    let inserted = row!(
        tx,
        "insert into users (public_id, merchant_id, mode, name, state, created_at) values ($1, $2, $3, $4, $5, $6)
         on conflict (merchant_id, mode, name) do nothing returning id",
        new.public_id.to_string(),
        shop.merchant,
        shop.mode,
        &new.name,
        State::Active,
        now
    )?;
    inserted.map(|row| row.get("id")).transpose()
}

/// Inserts the e-mail address of a user.
pub async fn insert_user_contact(tx: &mut Tx, user: UserId, email: &str) -> Result<(), db::Error> {
    let n = execute!(tx, "insert into user_contacts (user_id, email) values ($1, $2)", user, email)?;
    expect_changed(n, 1)
}

/// Returns the user with this name; `None` when the shop has no such user.
pub async fn find_user_by_name(tx: &mut Tx, shop: Shop, name: &str) -> Result<Option<User>, db::Error> {
    let found = row!(
        tx,
        "select id, public_id, name, state, created_at from users where merchant_id = $1 and mode = $2 and name = $3",
        shop.merchant,
        shop.mode,
        name
    )?;
    found.as_ref().map(parse_user).transpose()
}

/// The maximum number of users that [`list_users`] returns.
const LIST_MAX: u32 = 10_000;

/// Returns at most [`LIST_MAX`] users of a shop, sorted by name.
pub async fn list_users(tx: &mut Tx, shop: Shop) -> Result<Vec<User>, db::Error> {
    let found = rows!(
        tx,
        "select id, public_id, name, state, created_at from users where merchant_id = $1 and mode = $2
         order by name limit $3",
        shop.merchant,
        shop.mode,
        LIST_MAX
    )?;
    found.iter().map(parse_user).collect()
}

fn parse_user(row: &Row) -> Result<User, db::Error> {
    Ok(User {
        id: row.get("id")?,
        public_id: row.get("public_id")?,
        name: row.get("name")?,
        state: row.get("state")?,
        created_at: row.get("created_at")?,
    })
}

/// Sets the state of a user.
pub async fn set_user_state(tx: &mut Tx, user: UserId, state: State) -> Result<(), db::Error> {
    let n = execute!(tx, "update users set state = $2 where id = $1", user, state)?;
    expect_changed(n, 1)
}
