# What Google Cloud needs to know of the broker: its issuer, and service accounts that its roles may act as.
# docs/targets/google.md.

data "google_project" "this" {
  project_id = var.project
}

resource "google_project_service" "needed" {
  for_each = toset(["iam.googleapis.com", "iamcredentials.googleapis.com", "sts.googleapis.com"])

  project            = var.project
  service            = each.key
  disable_on_destroy = false
}

resource "google_iam_workload_identity_pool" "cambio" {
  project                   = var.project
  workload_identity_pool_id = var.pool
  display_name              = "Cambio"
  depends_on                = [google_project_service.needed]
}

resource "google_iam_workload_identity_pool_provider" "cambio" {
  project                            = var.project
  workload_identity_pool_id          = google_iam_workload_identity_pool.cambio.workload_identity_pool_id
  workload_identity_pool_provider_id = "cambio"
  display_name                       = "Cambio"

  attribute_mapping = {
    "google.subject"     = "assertion.sub"
    "attribute.role"     = "assertion.role"
    "attribute.rule"     = "assertion.client_id"
    "attribute.exchange" = "assertion.exchange_id"
  }

  # Tokens that Cambio signs for others have no role, and another audience.
  attribute_condition = "has(assertion.role) && has(assertion.exchange_id)"

  oidc {
    issuer_uri = var.issuer
    # None named: the audience must be this provider itself.
  }
}

resource "google_service_account" "role" {
  for_each = var.roles

  project      = var.project
  account_id   = "cambio-${each.key}"
  display_name = "What Cambio grants as ${each.key}"
}

resource "google_service_account_iam_member" "may_act" {
  for_each = var.roles

  service_account_id = google_service_account.role[each.key].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.cambio.name}/attribute.role/${each.key}"
}
