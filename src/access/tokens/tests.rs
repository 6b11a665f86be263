use crate::tokens::{self, Token};
use clock::Instant;
use db::{Error, Tx, row};
use ids::{MerchantId, Mode, Shop, UserId};

const NOW: Instant = Instant(1_770_811_200_000);

async fn shop_with_user(tx: &mut Tx, slug: &'static str) -> Result<(Shop, UserId), Error> {
    let merchant = row!(
        tx,
        "insert into merchants (public_id, slug, name, created_at) values ($1, $1, $1, 0) returning id",
        slug
    )?;
    let shop = Shop { merchant: merchant.unwrap().get::<MerchantId>("id")?, mode: Mode::Test };
    let user = row!(
        tx,
        "insert into users (public_id, merchant_id, mode, name, state, created_at)
         values ($1, $2, 'test', 'ann', 'active', 0) returning id",
        slug,
        shop.merchant
    )?;
    Ok((shop, user.unwrap().get("id")?))
}

#[test]
fn a_token_has_its_prefix_and_256_random_bits() {
    let (a, b) = (Token::draw(&mut rand::rng()), Token::draw(&mut rand::rng()));
    assert!(a.reveal().starts_with("ut_") && a.reveal().len() == 67);
    assert_ne!(a.reveal(), b.reveal());
}

db::both! {
    async fn a_token_opens_its_own_shop_until_it_ends(db: Db) {
        let found = db.write::<_, Error, _>("test", |tx| Box::pin(async move {
            let (shop, user) = shop_with_user(tx, "one").await?;
            let (other, _) = shop_with_user(tx, "two").await?;
            let (token, brief) = (Token::draw(&mut rand::rng()), Token::draw(&mut rand::rng()));
            tokens::issue(tx, NOW, user, &token, None).await?;
            tokens::issue(tx, NOW, user, &brief, Some(NOW.plus_seconds(60))).await?;

            let mut found = Vec::new();
            found.push(tokens::authenticate(tx, NOW, shop, token.reveal()).await? == Some(user));
            found.push(tokens::authenticate(tx, NOW, other, token.reveal()).await?.is_none());
            found.push(tokens::authenticate(tx, NOW, Shop { mode: Mode::Live, ..shop }, token.reveal()).await?.is_none());
            found.push(tokens::authenticate(tx, NOW.plus_seconds(59), shop, brief.reveal()).await? == Some(user));
            found.push(tokens::authenticate(tx, NOW.plus_seconds(60), shop, brief.reveal()).await?.is_none());
            for wrong in ["", "ut_", &token.reveal()[1..], &token.reveal().to_uppercase(), &"u".repeat(100_000)] {
                found.push(tokens::authenticate(tx, NOW, shop, wrong).await?.is_none());
            }
            found.push(tokens::revoke(tx, NOW, token.reveal()).await?);
            found.push(!tokens::revoke(tx, NOW, token.reveal()).await?);
            found.push(tokens::authenticate(tx, NOW, shop, token.reveal()).await?.is_none());
            found.push(tokens::revoke_all(tx, NOW, user).await? == 1);
            Ok(found)
        })).await.unwrap();
        assert!(found.iter().all(|held| *held), "{found:?}");
    }
}
