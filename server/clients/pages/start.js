// Opens Swagger UI on this server's OpenAPI document.

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  syntaxHighlight: { activated: false }, // a chat's schema is long
  validatorUrl: null, // Swagger's own would be asked elsewhere
});
