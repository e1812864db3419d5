# What Entra needs to know of the broker: an application for each role, and whose assertions stand for it. docs/targets/azure.md.

locals {
  # One application, one subject: Entra compares it byte for byte, and the workload is told by our ledger.
  subjects = { for name, _ in var.roles : name => "cambio:${var.environment}:${name}" }
}

data "azuread_client_config" "this" {}

resource "azuread_application" "role" {
  for_each = var.roles

  display_name = "cambio-${var.environment}-${each.key}"
}

resource "azuread_service_principal" "role" {
  for_each = var.roles

  client_id = azuread_application.role[each.key].client_id
}

resource "azuread_application_federated_identity_credential" "role" {
  for_each = var.roles

  application_id = azuread_application.role[each.key].id
  display_name   = "cambio"
  description    = "Cambio signs for this application"
  audiences      = ["api://AzureADTokenExchange"]
  issuer         = var.issuer
  subject        = local.subjects[each.key]
}

resource "azurerm_role_assignment" "role" {
  for_each = merge([
    for name, role in var.roles : { for it in role.assignments : "${name} ${it.role} ${it.scope}" => merge(it, { name = name }) }
  ]...)

  scope                = each.value.scope
  role_definition_name = each.value.role
  principal_id         = azuread_service_principal.role[each.value.name].object_id
}
