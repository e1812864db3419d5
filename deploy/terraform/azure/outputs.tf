output "tenant" {
  description = "`tenant` of the target"
  value       = data.azuread_client_config.this.tenant_id
}

output "client_ids" {
  description = "`client_id` of each role"
  value       = { for name, application in azuread_application.role : name => application.client_id }
}

output "cambio_yaml" {
  description = "For `targets:` of cambio.yaml"
  value       = <<-YAML
    - name: ${var.target}
      kind: azure
      tenant: ${data.azuread_client_config.this.tenant_id}
      environment: ${var.environment}
      granted_by: [${join(", ", var.granted_by)}]
      roles:
    ${join("\n", [for name, application in azuread_application.role : "    ${name}: { client_id: ${application.client_id}, subject: \"${local.subjects[name]}\", scope: ${var.roles[name].token_scope} }"])}
  YAML
}
