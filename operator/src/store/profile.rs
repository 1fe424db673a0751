//! What is known of the products that speak S3, beyond what each store is asked by its probe.
//!
//! One table, and pure. Only its "no"s and the region change what is done; the rest is compared with what the probe sees. It holds what the makers' own pages or a try with the product say, and nothing else: what is not
//! known there is found out by the probe, and what the probe sees always counts more than what should be. All of them
//! take the bucket's name in the path, and want `Content-MD5` with what is locked and with nothing else: neither needs a
//! column.

use valv_crds::store::{Answer, Profile};

/// Whether a product can do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It can: seen, or its maker says so. The probe still asks each store.
    Yes,
    /// It cannot, whatever a store seems to answer.
    No,
    /// Nobody said: the probe asks.
    Unknown,
}

/// What is known of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quirks {
    /// What it is called in messages.
    pub product: &'static str,
    /// It keeps versions. Of a product that does not, none is heeded: Garage names one in its answer to a put, and knows
    /// none when it is asked for it.
    pub versions: Support,
    /// It has object lock.
    pub lock: Support,
    /// It heeds `If-None-Match: *` on a put.
    pub conditional_put: Support,
    /// The region's name in signatures where neither the store's spec nor its location is the one that it wants.
    pub signing_region: Option<&'static str>,
}

impl Quirks {
    /// Those of `profile`.
    ///
    /// # Source
    /// Garage: a try with 2.5.0 (`make conformance-garage`), <https://garagehq.deuxfleurs.fr/documentation/reference-manual/s3-compatibility>, and
    /// <https://garagehq.deuxfleurs.fr/documentation/connect> for the region. Ceph:
    /// <https://docs.ceph.com/en/latest/radosgw/s3>. Scaleway: <https://www.scaleway.com/en/docs/object-storage/concepts>.
    /// `OVHcloud`: its reversibility policy for Object Storage. `UpCloud`: its product documentation, which says nothing of
    /// locks. versitygw 1.8: the tests of this project.
    pub const fn of(profile: Profile) -> Self {
        use Support::{No, Unknown, Yes};
        match profile {
            // Product, versions, lock, conditional put, region in signatures.
            Profile::UpCloud => Self::row("UpCloud Managed Object Storage", Yes, Unknown, Unknown, None),
            Profile::OvhCloud => Self::row("OVHcloud Object Storage", Yes, Unknown, Unknown, None),
            Profile::Scaleway => Self::row("Scaleway Object Storage", Yes, Yes, Unknown, None),
            Profile::CephRgw => Self::row("Ceph's RADOS Gateway", Yes, Yes, Yes, None),
            Profile::Garage => Self::row("Garage", No, No, No, Some("garage")),
            Profile::Versitygw => Self::row("versitygw", Yes, Yes, Yes, None),
            Profile::Generic => Self::row("an unknown product", Unknown, Unknown, Unknown, None),
        }
    }

    /// In what a store that was seen to treat a precondition as `seen` differs from its product.
    pub fn difference(self, seen: Answer) -> Option<String> {
        let product = self.product;
        match (self.conditional_put, seen) {
            (Support::Yes, Answer::No) => {
                Some(format!("{product} heeds If-None-Match on a put, and this store does not"))
            }
            (Support::No, Answer::Yes) => Some(format!(
                "{product} does not heed If-None-Match on a put, and this store does: it is not relied on"
            )),
            _ => None,
        }
    }

    const fn row(
        product: &'static str,
        versions: Support,
        lock: Support,
        conditional_put: Support,
        signing_region: Option<&'static str>,
    ) -> Self {
        Self { product, versions, lock, conditional_put, signing_region }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_unknown_product_nothing_is_taken_for_granted() {
        let Quirks { versions, lock, conditional_put, signing_region, .. } = Quirks::of(Profile::Generic);

        assert_eq!([versions, lock, conditional_put], [Support::Unknown; 3]);
        assert_eq!(signing_region, None);
    }
}
