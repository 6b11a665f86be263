use uuid::Uuid;

use crate::fixture::{NOW, OPERATOR, run_read, run_write};
use crate::merchants::{self, CreateMerchantError};

db::both! {
    async fn a_slug_names_one_merchant(db: Db) {
        let create = |slug: &'static str, name: &'static str| {
            db.write("test", move |tx| Box::pin(merchants::create_merchant(tx, NOW, &OPERATOR, Uuid::new_v4(), slug, name)))
        };
        let id = create("acme", "Acme").await.unwrap();
        assert!(matches!(create("acme", "Other").await, Err(CreateMerchantError::SlugTaken)));
        for slug in ["", "Acme", "ac me", "é"] {
            assert!(matches!(create(slug, "Acme").await, Err(CreateMerchantError::BadSlug)), "{slug}");
        }
        assert!(matches!(create("empty", "").await, Err(CreateMerchantError::BadName)));
        let found = run_read(&db, |tx| Box::pin(merchants::find_merchant_by_slug(tx, "acme"))).await.unwrap();
        assert_eq!((found.id, found.name.as_str(), found.created_at), (id, "Acme", NOW));
        assert_eq!(run_read(&db, |tx| Box::pin(merchants::list_merchants(tx))).await, [found]);
        assert_eq!(run_write(&db, |tx| Box::pin(merchants::find_merchant_by_slug(tx, "none"))).await, None);
    }
}
