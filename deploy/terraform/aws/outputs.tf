output "role_arns" {
  description = "`role_arn` of each role"
  value       = { for name, role in aws_iam_role.role : name => role.arn }
}

output "cambio_yaml" {
  description = "For `targets:` of cambio.yaml"
  value       = <<-YAML
    - name: ${var.target}
      kind: aws
      region: ${data.aws_region.here.name}
      environment: ${var.environment}
      ceiling: 1h
      granted_by: [${join(", ", var.granted_by)}]
      assertion: { audience: ${var.audience} }
      roles:
    ${join("\n", [for name, role in aws_iam_role.role : "    ${name}: { role_arn: \"${role.arn}\" }"])}
  YAML
}
